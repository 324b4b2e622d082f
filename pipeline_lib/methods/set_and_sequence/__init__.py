"""Set-and-Sequence: one identity basis from a set of frames, motion residuals from the sequence."""
