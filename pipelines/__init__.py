"""What moves data: storage, ingest, training, restoration, tracking, evaluation."""
