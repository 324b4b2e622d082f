"""Base models behind one seam, and the LoRAs that are put on them."""

import logging

# bitsandbytes, where installed, looks for kernels of a model hub while it is imported, and tells that it found none.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
