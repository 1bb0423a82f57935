"""Pages for people: what a model does with a picture, with its charts and maps, in one HTML file."""

__all__ = ["report"]
