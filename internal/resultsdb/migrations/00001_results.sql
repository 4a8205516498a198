-- What benchmarks have found. The same text is read by SQLite and by Postgres.

-- +goose Up
CREATE TABLE runs (
    id             TEXT PRIMARY KEY, -- made from the content
    revision       TEXT NOT NULL,
    modified       BOOLEAN NOT NULL,
    against        TEXT NOT NULL, -- the commit it was measured in turn with, or empty
    platform       TEXT NOT NULL,
    recorded_at    BIGINT NOT NULL, -- seconds since 1970
    command        TEXT NOT NULL,
    settings       TEXT NOT NULL, -- JSON
    cpus           INTEGER NOT NULL,
    cpu            TEXT NOT NULL,
    memory         BIGINT NOT NULL, -- bytes
    kernel         TEXT NOT NULL,
    go             TEXT NOT NULL,
    remote_cluster BOOLEAN NOT NULL, -- needs a cluster of several machines
    document       TEXT NOT NULL -- the whole run as JSON
);
CREATE INDEX runs_by_time ON runs (platform, recorded_at);
CREATE INDEX runs_by_revision ON runs (revision);

CREATE TABLE results (
    run_id         TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    suite          TEXT NOT NULL,
    name           TEXT NOT NULL,
    labels         TEXT NOT NULL, -- such as members=3, in order
    title          TEXT NOT NULL,
    unit           TEXT NOT NULL,
    report         TEXT NOT NULL, -- lower_is_better, higher_is_better or test_param
    samples        INTEGER NOT NULL,
    minimum        DOUBLE PRECISION NOT NULL,
    median         DOUBLE PRECISION NOT NULL,
    mean           DOUBLE PRECISION NOT NULL,
    p99            DOUBLE PRECISION NOT NULL,
    maximum        DOUBLE PRECISION NOT NULL,
    goal           TEXT NOT NULL, -- for people
    missed         BOOLEAN NOT NULL,
    total_duration DOUBLE PRECISION NOT NULL, -- seconds, of the suite
    steal          DOUBLE PRECISION NOT NULL, -- percent
    load           DOUBLE PRECISION NOT NULL,
    fsync_median   DOUBLE PRECISION NOT NULL, -- seconds
    fsync_maximum  DOUBLE PRECISION NOT NULL, -- seconds
    PRIMARY KEY (run_id, suite, name, labels)
);
CREATE INDEX results_by_name ON results (name, labels);

-- The same in the columns that Neon's performance tests store.
CREATE VIEW perf_test_results AS
SELECT suite       AS suit,
       revision    AS revision,
       platform    AS platform,
       name        AS metric_name,
       median      AS metric_value,
       unit        AS metric_unit,
       report      AS metric_report_type,
       recorded_at AS recorded_at_timestamp,
       labels      AS labels
FROM results JOIN runs ON runs.id = results.run_id;

-- +goose Down
DROP VIEW perf_test_results;
DROP TABLE results;
DROP TABLE runs;
