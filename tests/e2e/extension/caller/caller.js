// An extension that calls cinderlm from a page of its own; this is here to make it known to the browser.
