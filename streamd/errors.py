"""Every error streamd raises on purpose.

    StreamdError
    ├── TransientError          may succeed later: retried with backoff by whoever owns the work
    │   ├── VaultUnreachable · StorageThrottled · IdentityUnavailable · DiskFull ·
    │   │                      DaemonUnreachable
    └── PermanentError          stays until somebody changes something
        ├── configuration  ConfigInvalid · SecretUnreadable · KeyFileInvalid
        ├── storage        BlobConflict · BlobNotFound · ContainerMissing · ProxyRefused ·
        │                  NamespaceHierarchical · TlsFailed (TlsUntrusted · TlsExpired ·
        │                  TlsWrongName) · StorageRefused (RightMissing · FirewallRefused ·
        │                  CredentialRejected (CredentialExpired · ClockSkewed))
        ├── vault          VaultExists · VaultMissing · VaultDamaged · KeyRejected ·
        FormatUnsupported │                  WriterFenced
        ├── host           AlreadyRunning · SourceUnavailable
        └── request        UsageInvalid · NotFound · TargetConflict · SpaceMissing · PolicyRefused

Each class carries a stable slug (`code`, which names `docs/runbook/<code>.md`), the exit code of
the command that ends with it, and the remedy. Adapters translate foreign exceptions into these at
their own boundary, and nowhere else.
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a command tells the shell; part of the command line contract."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    INCOMPLETE = 3
    CONFIGURATION = 4
    REFUSED = 5
    UNREACHABLE = 6
    INTEGRITY = 7
    POLICY = 8
    NOT_FOUND = 9
    INTERRUPTED = 130


class StreamdError(Exception):
    """What failed, with the facts needed to act on it. `str(e)` is one line, fit for a log.

    Facts fill the placeholders of `remedy`; a fact is never a secret.
    """

    code: ClassVar[str] = "internal"
    remedy: ClassVar[str] = "this is a bug: report it with the log of the last minutes"
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    retry_after_seconds: float | None = None  # when whoever failed says how long to wait

    def __init__(self, what: str, **facts: object) -> None:
        super().__init__(what)
        self.facts = facts

    def advice(self) -> str:
        """Return the remedy with this error's facts filled in."""
        return self.remedy.format(**self.facts)


class TransientError(StreamdError):
    """May succeed if tried again later."""


class PermanentError(StreamdError):
    """Will fail again until somebody changes something."""


# -- transient ---------------------------------------------------------------------------------


class VaultUnreachable(TransientError):
    """The blob service did not answer in time, or answered with a server error."""

    code = "vault-unreachable"
    exit_code = ExitCode.UNREACHABLE
    remedy = "check the network path to {endpoint}; uploads resume by themselves, nothing is lost"


class StorageThrottled(TransientError):
    """The blob service asked us to slow down (429 or 503)."""

    code = "storage-throttled"
    exit_code = ExitCode.UNREACHABLE
    remedy = "uploads slow down by themselves; if it lasts, look at the account's request limits"

    def __init__(self, what: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(what)
        self.retry_after_seconds = retry_after_seconds


class IdentityUnavailable(TransientError):
    """Nobody answers who could vouch for us: Entra ID, or this machine's metadata service."""

    code = "identity-unavailable"
    exit_code = ExitCode.UNREACHABLE
    remedy = "check the path to {endpoint}; uploads resume by themselves, nothing is lost"


class DiskFull(TransientError):
    """A local file system has no space or no inodes left for streamd's own files."""

    code = "disk-full"
    exit_code = ExitCode.UNREACHABLE
    remedy = "free space at {path} or move it to a larger disk; protection resumes by itself"


class NotDurableYet(TransientError):
    """What was asked for was handed in, and did not become durable in time."""

    code = "not-durable-yet"
    exit_code = ExitCode.UNREACHABLE
    remedy = "streamd status says what capture waits for; mend that, then ask again if need be"


class DaemonUnreachable(TransientError):
    """No daemon answers on the control socket."""

    code = "daemon-unreachable"
    exit_code = ExitCode.UNREACHABLE
    remedy = "start it: systemctl start streamd (socket {socket})"


# -- configuration -----------------------------------------------------------------------------


class ConfigInvalid(PermanentError):
    """The configuration cannot be used; a running daemon keeps the one it has."""

    code = "config-invalid"
    exit_code = ExitCode.CONFIGURATION
    remedy = "correct the configuration, then try it with: streamd config check"

    def __init__(self, what: str, *, problems: tuple[str, ...] = ()) -> None:
        super().__init__(what)
        self.problems = problems


class SecretUnreadable(PermanentError):
    """A secret's file is missing, unreadable, empty, or readable by others."""

    code = "secret-unreadable"
    exit_code = ExitCode.CONFIGURATION
    remedy = "give streamd alone access: chown to its user, chmod 0600 {path}"


class KeyFileInvalid(PermanentError):
    """The host's key file is not one, is damaged, or belongs to another vault."""

    code = "key-file-invalid"
    exit_code = ExitCode.CONFIGURATION
    remedy = "put the right key file at {path}, or make one: streamd init"


# -- storage -----------------------------------------------------------------------------------


class BlobConflict(PermanentError):
    """An object exists under this name with different bytes."""

    code = "blob-conflict"
    exit_code = ExitCode.INTEGRITY
    remedy = "something else writes to this vault, or {name} is damaged: run streamd verify"


class BlobNotFound(PermanentError):
    """An object that ought to exist does not."""

    code = "blob-not-found"
    exit_code = ExitCode.INTEGRITY
    remedy = "run streamd verify; {name} may be in soft delete and can then be undeleted"


class StorageRefused(PermanentError):
    """The storage knows us and says no, or does not know us (401, 403)."""

    code = "storage-refused"
    exit_code = ExitCode.REFUSED
    remedy = "check the credential and its rights on the container: streamd doctor"


class CredentialRejected(StorageRefused):
    """The credential is unknown: mistyped, revoked, or the account's key was regenerated."""

    code = "credential-rejected"
    remedy = "put a valid credential in place ({place}); uploads then resume by themselves"


class CredentialExpired(CredentialRejected):
    """The credential was valid once and is no more."""

    code = "credential-expired"
    remedy = "renew the credential ({place}); it is read again and uploads resume by themselves"


class ClockSkewed(CredentialRejected):
    """This host's clock and the storage's differ so much that signatures are void."""

    code = "clock-skewed"
    remedy = "set this host's clock (timedatectl status), or begin the SAS some minutes earlier"


class RightMissing(StorageRefused):
    """The storage knows us, but this operation is not among our rights."""

    code = "right-missing"
    remedy = "give this identity the right to {doing} on the container: streamd doctor"


class FirewallRefused(StorageRefused):
    """The account's firewall, or the address range of a SAS, keeps this host out."""

    code = "firewall-refused"
    remedy = "allow this host's address or subnet in the account's network rules ({endpoint})"


class TlsFailed(PermanentError):
    """No encrypted connection came about; streamd never falls back to an unencrypted one."""

    code = "tls-failed"
    exit_code = ExitCode.UNREACHABLE
    remedy = "look at what answers: openssl s_client -connect {endpoint}"


class TlsUntrusted(TlsFailed):
    """The certificate of what answers is signed by nobody we trust."""

    code = "tls-untrusted"
    remedy = "if a proxy inspects TLS on purpose, name its authority in vault.ca_file ({endpoint})"


class TlsExpired(TlsFailed):
    """The certificate of what answers is expired, or not valid yet."""

    code = "tls-expired"
    remedy = "renew the certificate of {endpoint}, or set this host's clock"


class TlsWrongName(TlsFailed):
    """The certificate of what answers is for another host."""

    code = "tls-wrong-name"
    remedy = "check DNS and vault.url: what answers as {endpoint} is somebody else"


class ProxyRefused(PermanentError):
    """The proxy does not let us through: it wants a password, or forbids the destination."""

    code = "proxy-refused"
    exit_code = ExitCode.REFUSED
    remedy = "check vault.proxy with vault.proxy_password_file, or HTTPS_PROXY ({proxy})"


class NamespaceHierarchical(PermanentError):
    """The account has a hierarchical namespace: it lists out of order and cannot lock versions."""

    code = "namespace-hierarchical"
    exit_code = ExitCode.REFUSED
    remedy = "use a storage account without hierarchical namespace: {endpoint} cannot be converted"


class ContainerMissing(PermanentError):
    """The container of the vault does not exist."""

    code = "container-missing"
    exit_code = ExitCode.REFUSED
    remedy = "create the container {name}, or set vault.create_container = true"


# -- vault -------------------------------------------------------------------------------------


class VaultExists(PermanentError):
    """There is a vault at this place already."""

    code = "vault-exists"
    exit_code = ExitCode.POLICY
    remedy = "use another vault.url, or keep using the vault that is there with its key file"


class VaultMissing(PermanentError):
    """There is no vault at this place."""

    code = "vault-missing"
    exit_code = ExitCode.NOT_FOUND
    remedy = "check vault.url ({url}), or create the vault: streamd init"


class VaultDamaged(PermanentError):
    """An object of the vault does not parse, authenticate, or match its name."""

    code = "vault-damaged"
    exit_code = ExitCode.INTEGRITY
    remedy = "run streamd verify --level full; it names the affected paths and versions"


class KeyRejected(PermanentError):
    """The keys at hand do not open this object."""

    code = "key-rejected"
    exit_code = ExitCode.REFUSED
    remedy = "this host may not read the vault: use a key file with the full role, or the kit"


class HostWriteOnly(KeyRejected):
    """The host's key file has no private keys: it writes to the vault and cannot read it."""

    code = "host-write-only"
    exit_code = ExitCode.REFUSED
    remedy = "repeat the command with --kit FILE, or work on a host with the full role"


class KitInvalid(PermanentError):
    """A recovery kit is none, is damaged, or belongs to another vault."""

    code = "kit-invalid"
    exit_code = ExitCode.CONFIGURATION
    remedy = "name the file that streamd init wrote, or another copy of it"


class SecretUnusable(PermanentError):
    """A passphrase, key file or recovery code that cannot be used as one, or none was given."""

    code = "secret-unusable"
    exit_code = ExitCode.USAGE
    remedy = "give it in a file: --code-file, --passphrase-file or --key-file"


class KeysChanged(PermanentError):
    """The vault's key ring is newer than this host's key file, or changed at the same moment."""

    code = "keys-changed"
    exit_code = ExitCode.POLICY
    remedy = "repeat the command with --kit FILE: the kit opens the newest ring"


class LastSlot(PermanentError):
    """Without this slot nothing would open the key ring any more."""

    code = "last-slot"
    exit_code = ExitCode.POLICY
    remedy = "add another slot first: streamd key add"


class FormatUnsupported(PermanentError):
    """The vault needs a newer streamd."""

    code = "format-unsupported"
    exit_code = ExitCode.INTEGRITY
    remedy = "upgrade streamd on this host; nothing was changed"


class WriterFenced(PermanentError):
    """Somebody else wrote the next segment of this host's journal."""

    code = "writer-fenced"
    exit_code = ExitCode.POLICY
    remedy = "two daemons use this host's key file, or the machine was cloned: stop one of them"


# -- host --------------------------------------------------------------------------------------


class AlreadyRunning(PermanentError):
    """Another streamd holds this state directory."""

    code = "already-running"
    exit_code = ExitCode.POLICY
    remedy = "use the running daemon, or stop it first (state directory {path})"


class SourceUnavailable(PermanentError):
    """The root of a source is gone, or its mount is."""

    code = "source-unavailable"
    exit_code = ExitCode.INCOMPLETE
    remedy = "mount or restore {path}; nothing was recorded as deleted"


# -- request -----------------------------------------------------------------------------------


class UsageInvalid(PermanentError):
    """The command line asks for something that cannot be."""

    code = "usage-invalid"
    exit_code = ExitCode.USAGE
    remedy = "see streamd COMMAND --help"


class NotFound(PermanentError):
    """No such source, path, time or recovery point."""

    code = "not-found"
    exit_code = ExitCode.NOT_FOUND
    remedy = "look with streamd points, streamd ls or streamd find"


class TargetConflict(PermanentError):
    """Something stands where the restore would write."""

    code = "target-conflict"
    exit_code = ExitCode.POLICY
    remedy = "choose an empty --to, or say --on-conflict skip, overwrite, keep-both or newer"


class SpaceMissing(PermanentError):
    """The restore target has too little space or too few inodes."""

    code = "space-missing"
    exit_code = ExitCode.POLICY
    remedy = "choose a larger target, or restore a part"


class PolicyRefused(PermanentError):
    """Retention, immutability or a hold forbids it."""

    code = "policy-refused"
    exit_code = ExitCode.POLICY
    remedy = "read the reason; if the loss is meant, say so: --accept-loss"


class SourceSuspect(PolicyRefused):
    """A source was damaged in mass, and nothing of it is thinned until somebody releases it.

    The fact `reason` is `suspect`.
    """

    code = "source-suspect"
    remedy = (
        "look at what happened (streamd diff), restore what was lost;"
        " then, or if it was meant: streamd retention release SOURCE"
    )


class ObjectLocked(PolicyRefused):
    """The container keeps an object that retention lets go: immutability, a legal hold or a lease.

    The fact `reason` is `immutable` or `hold`.
    """

    code = "object-locked"
    remedy = (
        "wait until the lock of the container ends, or end the hold; it is tried again by itself"
    )
