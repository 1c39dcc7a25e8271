"""Unpacks one layer of an image: a program of its own, confined, that trusts nothing it reads.

`python -I -m tinyo_runtime.unpack FOLDER MEDIA_TYPE [ALGORITHM] <layer` fills FOLDER, and prints one line of JSON:
`{"diff_id", "size", "entries", "skipped"}`, or `{"error", "message", "errno"}`. It imports neither grpc nor
asyncio, so that it is ready before the first bytes of the layer arrive.

`__main__` decompresses, `tar` reads, `tree` writes: a layer of folders, files and symbolic links needs no more.
They call what stands beside them: `extensions` with `numbers`, `sparse`, `whiteouts` and `others` (what else an
archive may hold), `attributes`, `earlier` (entries that replace others), `formats` (other compressions), `limits`,
`refusals` (what is said), `confine`, and `ahead` (a second thread).
"""
