"""Injection: a pod and the settings of its cluster go in, a changed pod comes out, or the reasons why not."""
