"""Manifests and admission: what is injected where. The decisions are those of ``core/pods``."""
