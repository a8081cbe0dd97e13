from typing import Literal

compiler: str

def simd_level() -> Literal["avx512", "avx2", "baseline"]: ...
