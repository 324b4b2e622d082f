"""What metrics are computed from: embeddings of frames and texts, optical flow. Loaded once, one pass per encoder."""
