"""Measuring codecs: through real files, against classical and published ones.

| module | what it holds |
|---|---|
| `offered` | what the command line offers, by name; imports nothing |
| `trials` | several codecs on the same pictures |
| `run`, `workers`, `journal` | the loop over pictures and qualities; in other processes; resumed |
| `saving` | the decoded pictures that are saved, and what they are |
| `dvq` | the project's own codec |
| `anchors` | JPEG, JPEG 2000, WebP, AVIF and JPEG XL through Pillow |
| `baselines` | CompressAI's learned codecs, from weights by path |
| `metrics` | PSNR and MS-SSIM of 8-bit pictures |
| `results`, `resultfiles` | rows and their means; the same as JSON, and back |
| `curves` | rate-distortion curves, and the published ones that come along |
| `bdrate`, `pchip` | BD-rate, and the interpolation under it |
| `comparison` | BD-rates of mean curves and of single pictures |
| `report` | tables and CSV |
| `plot` | rate-distortion plots |
| `html`, `crops` | the report for a browser, and its crops at equal bytes |
| `libraries`, `compressai_compat` | imports of libraries that may be missing |

Nothing is imported here, so that each command loads only what it uses.
"""
