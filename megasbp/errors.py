"""Exceptions that the command lines print without a traceback of their own."""

import errno

# Numbers of an OSError that says that there is no room: the command line prints it with the mend.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What a place does not allow, or a file system cannot do; and a file where a folder is wanted, or the other
# way round.
NOT_ALLOWED = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK),
        *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    }
)


class InputError(ValueError):
    """A mistake in what the user gave: a file, a setting, a budget.

    The message is one line that names the place, the offending value, what is allowed and the mend.
    The command line prints it without a traceback and exits with status 2.
    """


class ShardError(Exception):
    """A shard could not be made, and not by a mistake of the user; the message ends with its traceback.

    The command line prints it and exits with status 1; the same command goes on with the shards that are
    missing.
    """


class StageError(Exception):
    """A stage has failed in a process of its own, which has said why; the message names the stage.

    The command line prints it and exits with status 1; the same command goes on where that stage stopped.
    """
