"""Checks over all units by SQL on the manifest: uids, duplicates, the selection, the train index."""

from __future__ import annotations

from collections.abc import Iterator

from curation.manifest.manifest import Manifest

# A query returns a row when something is wrong; the sentence refers to the columns of the row by position.
_SAMPLES = [
    (
        "select uid, count(*) from samples group by uid having count(*) > 1 order by uid limit 1",
        "uid {0} is {1} times in samples.",
    ),
]
_DUPLICATES = [
    (
        "select uid, count(*) from duplicates group by uid having count(*) > 1 order by uid limit 1",
        "uid {0} is {1} times in duplicates.",
    ),
    (
        "select d.uid from duplicates d left join downloads o on o.uid = d.uid and o.status = 'ok' "
        "where o.uid is null order by d.uid limit 1",
        "duplicates removes uid {0}, whose picture never came.",
    ),
    (
        "select d.uid, d.kept_uid from duplicates d left join downloads o on o.uid = d.kept_uid and o.status = 'ok' "
        "left join duplicates r on r.uid = d.kept_uid "
        "where d.tier not like 'decontamination:%' and d.tier not like 'forgotten:%' "
        "and (o.uid is null or r.uid is not null or d.uid = d.kept_uid) "
        "order by d.uid limit 1",
        "duplicates removes uid {0} for uid {1}, which is not kept itself.",
    ),
]
_SELECTION = [
    (
        "select uid, count(*) from selection group by uid having count(*) > 1 order by uid limit 1",
        "uid {0} is {1} times in selection.",
    ),
    (
        "select s.uid from samples s left join selection l using (uid) where l.uid is null order by s.uid limit 1",
        "uid {0} of samples is missing from selection: run `curate select` again.",
    ),
    (
        "select l.uid from selection l left join samples s using (uid) where s.uid is null order by l.uid limit 1",
        "uid {0} of selection is not in samples.",
    ),
    (
        "select uid, kept, reason from selection where kept is null or kept <> (reason is null) order by uid limit 1",
        "uid {0} of selection has kept = {1} with reason {2}.",
    ),
    (
        "select l.uid, coalesce(l.reason, 'none'), d.status from selection l join downloads d using (uid) "
        "where (d.status <> 'ok' and l.reason is distinct from 'download:' || d.status) "
        "or (d.status = 'ok' and l.reason like 'download:%') order by l.uid limit 1",
        "uid {0} of selection has reason {1}, but the download ended as {2}: run `curate select` again.",
    ),
]
_TRAIN = [
    (
        "select uid, count(*) from train_index group by uid having count(*) > 1 order by uid limit 1",
        "uid {0} is {1} times in train_index.",
    ),
    (
        "select l.uid from selection l left join train_index t using (uid) where l.kept and t.uid is null "
        "order by l.uid limit 1",
        "uid {0} is kept by selection and missing from train_index: run `curate pack` again.",
    ),
    (
        "select t.uid from train_index t left join selection l using (uid) where not coalesce(l.kept, false) "
        "order by t.uid limit 1",
        "uid {0} is in train_index and not kept by selection: run `curate pack` again.",
    ),
    (
        "select t.uid from train_index t join downloads d using (uid) where t.sha256 <> d.stored_sha256 "
        "order by t.uid limit 1",
        "uid {0} of train_index has another sha256 than its picture in downloads.",
    ),
]


def find_differences(manifest: Manifest) -> Iterator[str]:
    """Differences between whole tables; tables that do not exist yet are left out."""
    checks = list(_SAMPLES)
    for table, more in (("duplicates", _DUPLICATES), ("selection", _SELECTION), ("train_index", _TRAIN)):
        if manifest.root.current(table) is not None:
            checks += more
    for sql, sentence in checks:
        for row in manifest.query(sql).fetchall():
            yield sentence.format(*row)
