// Clients that others wrote, as a page uses them. Bundled by clients.test.mjs.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { OpenAI as LangChainOpenAI } from "@langchain/openai";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

globalThis.clients = { OpenAI, LangChainOpenAI, createOpenAICompatible, generateText, streamText };
