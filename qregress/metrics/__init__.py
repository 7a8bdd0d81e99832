"""Images to numbers: LPIPS, CLIP score, PSNR, SSIM, latents' distance, sanity.

Only names are imported here, so that a configuration can be checked without torch.
"""

from qregress.metrics.names import FOLDER_PREFIX, LPIPS_NAMES, validate_clip_name
from qregress.metrics.weights import MetricError, WeightsId, require_same

__all__ = ["FOLDER_PREFIX", "LPIPS_NAMES", "MetricError", "WeightsId", "require_same", "validate_clip_name"]
