"""Packs what a container changed into a layer: a program of its own, confined, that trusts nothing it reads.

`python -I -m tinyo_runtime.pack FOLDER gzip|zstd FD` reads the upper folder of an overlay and writes the layer
to descriptor FD. It prints one line of JSON: `{"diff_id", "size", "entries", "left_out"}`, or `{"error",
"message", "errno"}` as the unpacker does. The same folder gives the same bytes.

`__main__` confines itself and compresses, `walk` finds what is to be said, `archive` says it in the words of
tar, `content` adds the data of files, `attributes` what overlayfs and users said of them.
"""
