"""llama.cpp without a browser, through llama-cpp-python, as turn.mjs calls contenders: a JSON object a line in, its answer a line out.

    python native.py MODEL.gguf

Each line is [method, argument]; the answer is {"value": ...} or {"error": ...}. The library's own defaults hold, but for what `load` is given.
"""

import json
import re
import sys
import time
from pathlib import Path

import llama_cpp


class Bench:
    def __init__(self, path):
        self.path = path
        self.llama = None

    def load(self, options):
        threads = options["threads"]
        self.llama = llama_cpp.Llama(
            self.path,
            n_ctx=options["contextLength"],
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )
        return {"device": "CPU", "version": llama_cpp.__version__}

    def run(self, options):
        started = time.perf_counter()
        ids = self.llama.tokenize(options["prompt"].encode(), add_bos=False, special=True)
        times, tokens = [], []
        # It goes on through end-of-text tokens, and keeps what it has read of a beginning that the last prompt had too.
        for token in self.llama.generate(ids, temp=0.0, top_k=1):
            times.append((time.perf_counter() - started) * 1000)
            tokens.append(token)
            if len(tokens) == options["maxTokens"]:
                break
        text = self.llama.detokenize(tokens, special=True).decode(errors="replace")
        return {"firstMillis": times[0], "lastMillis": times[-1], "text": text, "tokens": len(tokens), "promptTokens": len(ids)}

    def peak(self, _):
        """The most memory that this process has held, in bytes, on Linux."""
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[1]) * 1024


def main():
    bench = Bench(sys.argv[1])
    for line in sys.stdin:
        method, argument = json.loads(line)
        try:
            answer = {"value": getattr(bench, method)(argument)}
        except Exception as error:  # Told to the caller, who decides.
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
