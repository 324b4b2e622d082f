"""Base models behind one seam, and the LoRAs that are put on them."""
