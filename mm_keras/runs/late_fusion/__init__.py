"""Late fusion: runs that were trained apart become one run, by weights, by vote, or by stacking.

Import `late_fusion` from `fuse`.

May import: what `mm_keras.runs` may.
"""
