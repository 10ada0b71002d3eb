"""The write side of a vault: sessions, and the encoding of every object this host puts.

Needs public keys only. Encoding is separate from putting, because a segment is remembered in the
catalog before it is put. Session keys are replaced after a day, and at once when the vault has new
key pairs. Threads may share a writer.
"""

from collections.abc import Iterable, Sequence
from threading import Lock

from streamd.effects import MICROSECONDS, Clock, Entropy
from streamd.format import checkpoint, control, history_run, index_run, pack, segment
from streamd.format.checkpoint import CheckpointRoot
from streamd.format.control import Condemned, EpochRecord, Finalised
from streamd.format.frame import FrameSealer, SealedBatch
from streamd.format.history_run import HistoryRoot, HistoryRow
from streamd.format.index_run import IndexManifest, IndexShard
from streamd.format.keys import SALT_SIZE, SESSION_SECONDS_MAX, Role, Session, new_session
from streamd.format.pack import EncodedObject
from streamd.format.segment import SegmentDraft
from streamd.vault.vault import Vault


class VaultWriter:
    """Encodes what this host writes."""

    def __init__(self, vault: Vault, clock: Clock, entropy: Entropy) -> None:
        self.vault = vault
        self._clock = clock
        self._entropy = entropy
        self._lock = Lock()
        self._sessions: dict[Role, tuple[int, Session]] = {}

    def session(self, role: Role) -> Session:
        """Return the session key in use for a role; a new one once a day."""
        now_us = self._clock.now_us()
        with self._lock:
            known = self._sessions.get(role)
            keys = self.vault.keys
            if (
                known is not None
                and abs(now_us - known[0]) < SESSION_SECONDS_MAX * MICROSECONDS
                and known[1].source.generation == keys.public.generation
            ):
                return known[1]
            session = new_session(keys.vault, keys.public, role, self._entropy)
            keys.remember(session)
            self._sessions[role] = (now_us, session)
            return session

    def sealer(self, role: Role) -> FrameSealer:
        """Return a sealer of frames of a new origin."""
        salt = self._entropy.token(SALT_SIZE)
        return FrameSealer(self.session(role), salt, self.vault.identity)

    def encode_pack(self, batches: Sequence[SealedBatch], role: Role) -> EncodedObject:
        """Return a pack of these frames."""
        return pack.encode_pack(
            batches,
            role=role,
            keys=self.vault.keys,
            now_us=self._clock.now_us(),
            entropy=self._entropy,
        )

    def encode_segment(self, draft: SegmentDraft) -> EncodedObject:
        """Return a journal segment."""
        return segment.encode_segment(
            draft,
            keys=self.vault.keys,
            meta=self.session(Role.META),
            signer=self.vault.signer,
            entropy=self._entropy,
        )

    def encode_epoch(self, record: EpochRecord) -> EncodedObject:
        """Return an epoch record."""
        return control.encode_epoch(
            record, keys=self.vault.keys, signer=self.vault.signer, entropy=self._entropy
        )

    def encode_checkpoint(self, root: CheckpointRoot) -> EncodedObject:
        """Return a checkpoint root; its pages must be in the vault already."""
        return checkpoint.encode_checkpoint(
            root,
            keys=self.vault.keys,
            meta=self.session(Role.META),
            signer=self.vault.signer,
            entropy=self._entropy,
        )

    def encode_history(self, root: HistoryRoot, rows: Iterable[HistoryRow]) -> EncodedObject:
        """Return a history run of sorted rows."""
        return history_run.encode_run(
            root,
            rows,
            keys=self.vault.keys,
            meta=self.session(Role.META),
            signer=self.vault.signer,
            entropy=self._entropy,
        )

    def encode_index_shard(self, shard: IndexShard, generation: int) -> EncodedObject:
        """Return a shard of an index generation."""
        return index_run.encode_shard(
            shard,
            generation,
            keys=self.vault.keys,
            now_us=self._clock.now_us(),
            signer=self.vault.signer,
            entropy=self._entropy,
        )

    def encode_index_manifest(self, manifest: IndexManifest) -> EncodedObject:
        """Return the manifest of an index generation, whose shards are in the vault already."""
        return index_run.encode_manifest(
            manifest,
            keys=self.vault.keys,
            now_us=self._clock.now_us(),
            signer=self.vault.signer,
            entropy=self._entropy,
        )

    def encode_condemned(self, condemned: Condemned) -> EncodedObject:
        """Return a condemn list."""
        return control.encode_condemned(
            condemned,
            keys=self.vault.keys,
            now_us=self._clock.now_us(),
            signer=self.vault.signer,
            entropy=self._entropy,
        )

    def encode_finalised(self, final: Finalised) -> EncodedObject:
        """Return a final list."""
        return control.encode_finalised(
            final,
            keys=self.vault.keys,
            now_us=self._clock.now_us(),
            signer=self.vault.signer,
            entropy=self._entropy,
        )
