"""libnftables(3) in the process: a ruleset's text goes in, and one transaction of the kernel comes of it."""

import ctypes


class Nftables:
    """A context of libnftables."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libnftables.so.1")
        self._lib.nft_ctx_new.restype = ctypes.c_void_p
        self._lib.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._lib.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        self._lib.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
        self._lib.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
        self._lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._lib.nft_ctx_free.argtypes = [ctypes.c_void_p]
        self._context = self._lib.nft_ctx_new(0)
        self._lib.nft_ctx_buffer_error(self._context)
        self._lib.nft_ctx_buffer_output(self._context)

    def run(self, commands: str) -> None:
        """Everything or nothing. OSError with what nft(8) would say."""
        if self._lib.nft_run_cmd_from_buffer(self._context, commands.encode()) != 0:
            said = self._lib.nft_ctx_get_error_buffer(self._context).decode()
            raise OSError(22, f"nftables: {said.strip()}")

    def close(self) -> None:
        self._lib.nft_ctx_free(self._context)
