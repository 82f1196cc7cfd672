"""Packing and unpacking of compressed clusters (qcow2) and grains (VMDK).

Three stream kinds, each behind one `Codec` object:

==============  ==============================================================================
name            stream
==============  ==============================================================================
zlib            raw deflate, RFC 1951: qcow2 compression type 0
zstd            Zstandard frames, RFC 8878: qcow2 compression type 1
zlib-wrapped    deflate with zlib's header and Adler-32 trailer, RFC 1950: VMDK compressed grains
==============  ==============================================================================

An image gives a stream's place only to whole 512-byte sectors (qcow2 specification, "Compressed clusters
descriptor"), so what follows the stream is padding or the next cluster's stream: every codec stops at the
stream's own end and ignores the rest. Nothing an input says can make a codec produce or hold more than the
bytes asked for.

Which libraries do the work, how fast they are and who else reads the result: docs/compression.md.
"""

from __future__ import annotations

import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    Bytes = bytes | bytearray | memoryview

# Smaller than what qemu-img writes on every kind of data tried, in clusters of 64 KiB. Level 1 is a third faster,
# but 2.6 % larger than qemu-img's on executables.
_RAW_LEVEL = 2
# Grains are compressed by others with zlib's own default and a 32 KiB window: the first level that is no larger.
_WRAPPED_LEVEL = 5
# The standard library's zlib when libdeflate is not there: a level that is 1.2 % larger and half as fast again
# as zlib's default. 2^12 is the window other writers of qcow2 use.
_STDLIB_RAW = (4, -12)
_STDLIB_WRAPPED = (6, 15)
# The level at which frames have exactly the size that others write.
_ZSTD_LEVEL = 3

_libdeflate: ModuleType | None = None
_libdeflate_sought = False


class CodecError(ValueError):
    """A compressed cluster or grain that does not unpack to the bytes it must hold.

    The text says what is wrong with the stream; the caller knows file and offset and adds them.
    """


class Codec:
    """One kind of compressed stream. Safe to use from several threads at once; the libraries run without the
    interpreter lock, so threads really work side by side.

    Attributes: `name` (see the module's table) and `level` (None: the codec's own choice).
    """

    __slots__ = ("level", "name")

    name: str
    level: int | None

    def __init__(self, name: str, level: int | None) -> None:
        self.name = name
        self.level = level

    def __repr__(self) -> str:
        return f"<Codec {self.name}>" if self.level is None else f"<Codec {self.name} level {self.level}>"

    def compress(self, view: Bytes, limit: int) -> bytes | None:
        """Pack `view` (contiguous bytes) into one stream.

        None when the stream would not be smaller than `limit` bytes: then the cluster is to be stored plain.
        """
        raise NotImplementedError

    def decompress(self, data: Bytes, out_length: int, at_least: int | None = None) -> bytes:
        """Unpack the stream at the start of `data` into exactly `out_length` bytes (>= 1).

        `data` may go on after the stream's end. With `at_least` a stream that holds fewer bytes, but not
        fewer than that, is good too and the result is as long as what it holds: the last grain of a VMDK
        extent may end where the disk ends.

        Raises CodecError when the stream is damaged, holds too few bytes, or goes on after `out_length`.
        """
        raise NotImplementedError


class _Deflate(Codec):
    __slots__ = ("_wrapped",)

    def __init__(self, name: str, level: int | None, wrapped: bool) -> None:
        super().__init__(name, level)
        self._wrapped = wrapped

    def compress(self, view: Bytes, limit: int) -> bytes | None:
        library = _find_libdeflate()
        packed: bytes | bytearray
        if library is None:
            packed = self._stdlib_compress(view)
        elif self._wrapped:
            packed = library.zlib_compress(view, self.level or _WRAPPED_LEVEL)
        else:
            packed = library.deflate_compress(view, self.level or _RAW_LEVEL)
        return bytes(packed) if len(packed) < limit else None

    def _stdlib_compress(self, view: Bytes) -> bytes:
        import zlib

        level, window = _STDLIB_WRAPPED if self._wrapped else _STDLIB_RAW
        if self.level is not None:
            level = min(self.level, 9)
        stream = zlib.compressobj(level, zlib.DEFLATED, window)
        return stream.compress(view) + stream.flush()

    def decompress(self, data: Bytes, out_length: int, at_least: int | None = None) -> bytes:
        library = _find_libdeflate()
        if library is not None:
            unpack = library.zlib_decompress if self._wrapped else library.deflate_decompress
            try:
                return _long_enough(bytes(unpack(data, out_length)), out_length, at_least)
            except library.DeflateError:
                # It says no more than that. The standard library tells what is wrong, and still hands out a
                # cluster that is whole up to a lost end mark.
                pass
        return _long_enough(self._stdlib_decompress(data, out_length), out_length, at_least)

    def _stdlib_decompress(self, data: Bytes, out_length: int) -> bytes:
        import zlib

        # A reader must not insist on the 4 KiB window that most writers keep to: the format allows 32 KiB.
        stream = zlib.decompressobj(15 if self._wrapped else -15)
        try:
            out = stream.decompress(data, out_length)
            more = b""
            if len(out) == out_length and not stream.eof:
                more = stream.decompress(stream.unconsumed_tail, 1)
        except zlib.error as error:
            reason = str(error).partition(": ")[2] or str(error)
            raise CodecError(f"compressed data is damaged: {reason}") from None
        if more:
            raise CodecError(f"compressed data goes on after {out_length} bytes")
        # Without the wrapping there is nothing after the last byte but an end mark, and all bytes are here. With
        # it the checksum is missing, and nothing vouches for them.
        if not stream.eof and (self._wrapped or len(out) < out_length):
            raise CodecError(f"compressed data is cut off after {len(out)} of {out_length} bytes")
        return out


class _Zstd(Codec):
    __slots__ = ("_contexts",)

    def __init__(self, name: str, level: int | None) -> None:
        super().__init__(name, level)
        # The library's contexts are not safe to share, and two threads in one crash the process.
        self._contexts = _thread._local()

    def compress(self, view: Bytes, limit: int) -> bytes | None:
        try:
            context = self._contexts.compressor
        except AttributeError:
            import zstandard

            # The frame header states the content's size, as other writers' do: readers then need no window.
            context = zstandard.ZstdCompressor(level=self.level or _ZSTD_LEVEL)
            self._contexts.compressor = context
        packed: bytes = context.compress(view)
        return packed if len(packed) < limit else None

    def decompress(self, data: Bytes, out_length: int, at_least: int | None = None) -> bytes:
        import io

        import zstandard

        try:
            context = self._contexts.decompressor
        except AttributeError:
            context = self._contexts.decompressor = zstandard.ZstdDecompressor()
        try:
            # Asked first, because the library allocates whatever size the frame header states.
            stated = zstandard.frame_content_size(data)
            if stated > out_length:
                raise CodecError(f"compressed data goes on after {out_length} bytes")
            if stated == out_length:
                out: bytes = context.decompress(data)
                return out
            if stated < 0:  # not stated
                out = context.decompress(data, max_output_size=out_length)
                if len(out) == out_length:
                    return out
            # A short frame: more may follow, with skippable ones between. Nobody is known to write that, so it may
            # be slow: fed byte by byte, the library takes nothing of what lies beyond a frame's end.
            several = bytearray()
            source = io.BytesIO(data)
            while len(several) < out_length and source.tell() < len(data):
                with context.stream_reader(source, read_size=1, closefd=False) as reader:
                    several += reader.read(out_length + 1 - len(several))
        except zstandard.ZstdError as error:
            reason = str(error).partition("error: ")[2] or str(error)
            raise CodecError(f"compressed data is damaged: {reason}") from None
        if len(several) > out_length:
            raise CodecError(f"compressed data goes on after {out_length} bytes")
        return _long_enough(bytes(several), out_length, at_least)


def _long_enough(out: bytes, out_length: int, at_least: int | None) -> bytes:
    if len(out) < (out_length if at_least is None else at_least):
        raise CodecError(f"compressed data holds {len(out)} bytes, {out_length} expected")
    return out


def _find_libdeflate() -> ModuleType | None:
    """The libdeflate binding, or None; sought once, because Python remembers no failed import."""
    global _libdeflate, _libdeflate_sought
    if not _libdeflate_sought:
        try:
            import deflate

            _libdeflate = deflate
        except ImportError:
            pass
        _libdeflate_sought = True
    return _libdeflate


def codec(name: str, level: int | None = None) -> Codec:
    """The codec called `name` (see the module's table).

    `level` 1 (fast) … 12 for the deflate kinds, 1 … 22 for zstd; None chooses the one docs/compression.md
    explains. It matters to compress() only. Raises ValueError for a name or level that is not there.
    """
    if name not in ("zlib", "zstd", "zlib-wrapped"):
        raise ValueError(f"no compression type '{name}' (there are zlib, zstd, zlib-wrapped)")
    top = 22 if name == "zstd" else 12
    if level is not None and not 1 <= level <= top:
        raise ValueError(f"compression level {level} of {name} is not within 1..{top}")
    if name == "zstd":
        return _Zstd(name, level)
    return _Deflate(name, level, name == "zlib-wrapped")
