"""The layout of a store: one SQLite file, everything a report needs inside it.

History of `SCHEMA` (kept in ``PRAGMA user_version``):

1. first version;
2. `runs` has training, quote, cost, pending and info. A store of version 1 is read as it is, the
   new columns empty, and brought up to date when a study is run into it;
3. `runs` says track where it said lane, and received_start where it said received_incumbent. A
   store of an earlier version is read under the new names;
4. `instances` has condition, column_spread, greedy_energy and one_swap_energy.

A cell is pending too where nothing was sent to a service: --resume tries it again. Definitions are
never reworded, not even their comments: stores of a version all say the same.
"""

SCHEMA = 4
# Kept in ``PRAGMA application_id``: "iCBS" in ASCII tells a store from any other SQLite file.
APPLICATION_ID = 0x69434253

TABLES = """
CREATE TABLE invocations (
    id       INTEGER PRIMARY KEY,
    started  TEXT NOT NULL,           -- UTC, ISO 8601
    study    TEXT NOT NULL,
    settings TEXT NOT NULL,           -- JSON: budgets, seeds, give_initial, workers, ...
    host     TEXT NOT NULL            -- JSON: host class, python and package versions
);
CREATE TABLE instances (
    id                TEXT PRIMARY KEY,   -- content hash of the problem
    name              TEXT NOT NULL,
    n                 INTEGER NOT NULL,
    k                 INTEGER NOT NULL,
    rank              INTEGER NOT NULL,
    model             TEXT,
    layer             TEXT,
    fisher            TEXT,
    density           REAL,
    step              INTEGER,
    scale             REAL NOT NULL,
    build             REAL NOT NULL,      -- seconds to cut the block out of its model; 0: unknown
    initial_energy    REAL,
    random_energy     REAL,
    magnitude         REAL,
    instance_bound    REAL,               -- the relaxation's certified bound
    instance_upper    REAL,
    core_size         INTEGER,
    bound_seconds     REAL,
    bound_gap         REAL,
    effective_rank    REAL,
    curvature_share   REAL,
    coefficient_range REAL,
    condition         REAL,
    column_spread     REAL,
    greedy_energy     REAL,
    one_swap_energy   REAL,
    meta              TEXT NOT NULL,      -- JSON
    container         BLOB NOT NULL       -- the .block.safetensors file
);
CREATE TABLE runs (
    key               TEXT PRIMARY KEY,   -- identity of the cell
    invocation        INTEGER NOT NULL REFERENCES invocations(id),
    instance          TEXT NOT NULL REFERENCES instances(id),
    solver            TEXT NOT NULL,      -- label
    solver_name       TEXT NOT NULL,
    options           TEXT NOT NULL,      -- JSON
    track             TEXT,
    budget            TEXT NOT NULL,      -- JSON
    time_limit        REAL,
    seed_index        INTEGER NOT NULL,
    seed              INTEGER NOT NULL,
    give_initial      INTEGER NOT NULL,   -- whether the study offered the incumbent
    received_start    INTEGER,            -- whether the solver got it
    status            TEXT NOT NULL CHECK (status IN ('done', 'error', 'skipped', 'timeout')),
    reason            TEXT NOT NULL,
    energy            REAL,               -- best feasible sample, re-scored
    raw_energy        REAL,               -- best feasible sample before repair
    reads             INTEGER,
    best_reads        INTEGER,            -- reads as good as `energy`
    feasible          REAL,               -- share of feasible samples after repair
    raw_feasible      REAL,               -- and before
    lower_bound       REAL,
    proved_optimal    INTEGER,
    state             BLOB,               -- best feasible sample, numpy.packbits
    wall              REAL,
    cpu               REAL,
    load              REAL,               -- one-minute load average when the cell started
    started           TEXT,
    build REAL, convert REAL, preprocess REAL, queue REAL,
    execute REAL, decode REAL, repair REAL, score REAL,
    training REAL,                        -- seconds, a stage like those above
    quote             REAL,               -- USD at most, before the run; empty where it is free
    cost              REAL,               -- USD by the service's own tracker, after it
    pending           INTEGER,            -- 1: paid for and not collected yet; --resume collects
    info              TEXT                -- JSON: what the solver says of the run
);
CREATE TABLE incumbents (
    run     TEXT NOT NULL REFERENCES runs(key),
    seconds REAL NOT NULL,                -- runner's clock, from the start of the call
    energy  REAL NOT NULL,
    PRIMARY KEY (run, seconds)
) WITHOUT ROWID;
CREATE TABLE blobs (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,                   -- media type
    data BLOB NOT NULL
);
CREATE INDEX runs_by_instance ON runs(instance);
"""

# From version to the next one.
UPGRADES = {
    1: [
        "ALTER TABLE runs ADD COLUMN training REAL",
        "ALTER TABLE runs ADD COLUMN quote REAL",
        "ALTER TABLE runs ADD COLUMN cost REAL",
        "ALTER TABLE runs ADD COLUMN pending INTEGER",
        "ALTER TABLE runs ADD COLUMN info TEXT",
    ],
    2: [
        "ALTER TABLE runs RENAME COLUMN lane TO track",
        "ALTER TABLE runs RENAME COLUMN received_incumbent TO received_start",
    ],
    3: [
        "ALTER TABLE instances ADD COLUMN condition REAL",
        "ALTER TABLE instances ADD COLUMN column_spread REAL",
        "ALTER TABLE instances ADD COLUMN greedy_energy REAL",
        "ALTER TABLE instances ADD COLUMN one_swap_energy REAL",
    ],
}

# Options of solvers that cost money which say what may be spent and where it is noted, and do not
# decide the answer: a cell that was paid for under another cap is the same cell.
TERMS = ("max_cost", "journal", "poll_timeout", "max_service_time", "max_quantum_time")
