"""One file a system: a document and a function `experiment(scale=...)` that gives its declaration."""
