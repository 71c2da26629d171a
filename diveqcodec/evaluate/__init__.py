"""Measuring codecs: through real files, against classical and published ones.

| module | what it holds |
|---|---|
| `offered` | what the command line offers, by name; imports nothing |
| `run` | the loop: pictures × qualities through a codec to rows of numbers |
| `metrics` | PSNR and MS-SSIM of 8-bit pictures |
| `curves` | rate-distortion curves, result files, the published curves that come along |
| `bdrate`, `pchip` | BD-rate, and the interpolation under it |
| `anchors` | JPEG, JPEG 2000, WebP and AVIF through Pillow |
| `dvq` | the project's own codec |
| `baselines` | CompressAI's learned codecs, from weights by path |
| `report` | tables, JSON, CSV |
| `plot` | rate-distortion plots |
| `libraries`, `compressai_compat` | imports of libraries that may be missing |

Nothing is imported here, so that each command loads only what it uses.
"""
