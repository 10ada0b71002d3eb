-- The catalog: what this host remembers. It can be deleted: the vault and one full scan remake it.
--
-- Times are microseconds since the epoch unless the column says ns. Names and paths are bytes. A directory
-- entry's parent is the directory's fid; for entries of a source's virtual root it is minus the source's
-- number, because fid 1 is every source's root.

-- Single values: schema, vault, epoch, seq, head_hash, last_us, fid_next, clean, boot_id, …
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- One row for each source that ever had history here. `total` and `key_count` are the state sum after
-- the last segment (format.state_sum); `info` is the encoded SourceInfo in force, empty before the first.
CREATE TABLE source (
    number    INTEGER PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE,
    id        BLOB NOT NULL UNIQUE,
    info      BLOB NOT NULL DEFAULT x'',
    total     BLOB NOT NULL,
    key_count INTEGER NOT NULL DEFAULT 0,
    last_us   INTEGER NOT NULL DEFAULT 0,  -- time of the last record of this source
    base_us   INTEGER NOT NULL DEFAULT 0   -- time of the first
);

-- One row for each live file. The stat columns are what `examine` saw when `version` was captured;
-- ino 0: unknown (rebuilt from the vault), which compares unequal to everything. `version` is the encoded
-- FileVersion as it stands in the journal, so that sums and checkpoints need not encode it again.
-- `generation` tells one use of an inode number from the next (model.host.Identity); 0: not known.
-- `links` counts our dirents, not the file system's. `again` is 1 while the version is fuzzy.
CREATE TABLE node (
    fid      INTEGER PRIMARY KEY,
    source   INTEGER NOT NULL,
    type     INTEGER NOT NULL,
    mode     INTEGER NOT NULL,
    uid      INTEGER NOT NULL,
    gid      INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    dev      INTEGER NOT NULL,
    ino      INTEGER NOT NULL,
    nlink    INTEGER NOT NULL,
    rdev     INTEGER NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0,  -- since schema 4; the last column where that was older
    links    INTEGER NOT NULL,
    again    INTEGER NOT NULL,
    version  BLOB NOT NULL
);
CREATE INDEX node_ino ON node (ino);

CREATE TABLE dirent (
    parent INTEGER NOT NULL,
    name   BLOB NOT NULL,
    fid    INTEGER NOT NULL,
    type   INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID;
CREATE INDEX dirent_fid ON dirent (fid);

-- Places to look at again. `deep` 1: everything below too; 2: as part of a full scan. `picked` is the number of the survey that took
-- the row, 0 when nobody did; an event that arrives meanwhile resets it, so that it is looked at again.
CREATE TABLE dirty (
    source   INTEGER NOT NULL,
    path     BLOB NOT NULL,
    deep     INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    picked   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (source, path)
) WITHOUT ROWID;

CREATE INDEX dirty_age ON dirty (source, first_us);

-- Surveys under way: since when the oldest change that one was begun for has been waiting. The row of
-- a place may have a younger age by then, for it starts anew when an event makes the place dirty again.
CREATE TABLE survey (
    source   INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    PRIMARY KEY (source, number)
) WITHOUT ROWID;

-- Which chunks the vault holds, and the object that was written first with it.
CREATE TABLE chunk (id BLOB PRIMARY KEY, object INTEGER NOT NULL) WITHOUT ROWID;

-- Objects of this writer in the order in which they became durable here. state 0: bytes are in `unput`;
-- 1: in the local vault; 2: in the vault of record too (or there is no other). `needs` lists, msgpack,
-- the objects that must be in the vault of record before this one.
CREATE TABLE object (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name   TEXT NOT NULL UNIQUE,
    kind   TEXT NOT NULL,
    size   INTEGER NOT NULL,
    put_us INTEGER NOT NULL,
    state  INTEGER NOT NULL,
    local  INTEGER NOT NULL DEFAULT 1,  -- whether the local vault still has it
    needs  BLOB NOT NULL DEFAULT x'90'
);
CREATE INDEX object_pending ON object (number) WHERE state < 2;
CREATE INDEX object_local ON object (number, state, kind, size) WHERE local = 1;

-- Sealed objects whose put has not been seen to succeed: put again, the same bytes, at the next start.
CREATE TABLE unput (object INTEGER PRIMARY KEY, data BLOB NOT NULL);

-- Segments not yet put, or not yet in the vault of record: since when the oldest change in them was
-- waiting.
CREATE TABLE waiting (
    object   INTEGER NOT NULL,
    source   INTEGER NOT NULL,
    first_us INTEGER NOT NULL,
    PRIMARY KEY (object, source)
) WITHOUT ROWID;

-- Entries that could not be captured as they should, with the reason; a good capture removes the row.
CREATE TABLE problem (
    source   INTEGER NOT NULL,
    path     BLOB NOT NULL,
    reason   TEXT NOT NULL,
    errno    INTEGER NOT NULL,
    since_us INTEGER NOT NULL,
    detail   TEXT NOT NULL DEFAULT '',  -- what a program said
    PRIMARY KEY (source, path)
) WITHOUT ROWID;

-- How large files were cut when they were captured last (catalog.cuts): the newest, by `number`. `key` is a
-- keyed hash of the place, so that no path of what was deleted stays here. Since schema 5.
CREATE TABLE cuts (number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, known BLOB NOT NULL);
