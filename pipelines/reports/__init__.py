"""Pages for people, each one HTML file: what a model does with a picture, and what came of a night."""

__all__ = ["night", "report"]
