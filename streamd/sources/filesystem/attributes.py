"""Extended attributes of what is open, or at a path."""

import errno
import os


def read_xattrs(target: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return extended attributes, ACLs among them, by name; empty where there is no such thing."""
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM}:
            return ()
        raise
    if not names:
        return ()
    found = []
    for name in names:
        try:
            found.append((os.fsencode(name), os.getxattr(target, name, follow_symlinks=follow)))
        except OSError as error:
            if error.errno not in {errno.ENODATA, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP}:
                raise
    return tuple(sorted(found))
