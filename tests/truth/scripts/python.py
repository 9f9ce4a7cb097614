"""Extension modules that are loaded while the program runs, and what they allocate.

The modules behind the library's are imported themselves: the library's Python code would take most of the calls.
"""

import _bz2
import _codecs_jp
import _ctypes
import _json
import _lzma

words = ["word" + str(number % 97) for number in range(300)]
counts = {word: words.count(word) for word in words}
print("".join(map(_json.encode_basestring, counts))[:40])
print(_codecs_jp.getcodec("shift_jis").encode("text " * 20)[1])
for compressor in _bz2.BZ2Compressor(), _lzma.LZMACompressor():
    print(len(compressor.compress(b"text" * 999) + compressor.flush()))


class Integer(_ctypes._SimpleCData):
    """A C int."""

    _type_ = "i"


class Compare(_ctypes.CFuncPtr):
    """A comparison that C calls back."""

    _flags_ = _ctypes.FUNCFLAG_CDECL
    _argtypes_ = [_ctypes.POINTER(Integer), _ctypes.POINTER(Integer)]
    _restype_ = Integer


class Sort(_ctypes.CFuncPtr):
    """A function of libc that is called through libffi."""

    _flags_ = _ctypes.FUNCFLAG_CDECL
    _restype_ = None


order = (Integer * 5)(3, 1, 4, 1, 5)
Sort(_ctypes.dlsym(_ctypes.dlopen(None, 0), "qsort"))(order, 5, 4, Compare(lambda a, b: a[0] - b[0]))
print(list(order))
