"""The queue in Redis: claims, leases, ordering keys, counters and dead letters. It knows no database.

A job in the queue is in one of four states; `producers.JobStatus` adds those of jobs that have left it. The job's score
in the sorted set and its lease decide which:

    enqueue ──▶ due ──── claim, ordering key free ────▶ claimed ── complete ──▶ result
                ▲ ▲ │                                    │ │ │ └─── bury ──────▶ dead letter ── replay ──▶ due
                │ │ └─ claim, ordering key held ─▶ parked│ │ └── retry ────────▶ deferred ── its time ──▶ due
                │ └─ the holder leaves the queue ───┘    │ └──── release ──────▶ due, at its own score
                └──────────── the lease ends ────────────┘
                       the job is then a suspect

    state     score                          lease key
    deferred  in the future                  none
    due       now or earlier                 none
    claimed   the end of its lease           the token of the claim
    parked    out of reach (keys.PARKED_MS)  none; its own score is under the ordering key

A *suspect* is a due job whose last claim ended without a settlement: its worker may have died of it, so the attempt
counts. When the suspect has no attempts left, it is dead with the code `crashed`; on its last attempt it runs alone.

Jobs of one ordering key run in the order of their scores. enqueue.lua gives jobs that are due at once strictly
increasing ones; a deferred job has its own time. The key is part of the job id (`…@user:42`). claim.lua lets the first
job hold the key and parks the others. When the holder leaves the queue (complete, bury, cancel), the same script
unparks the next one (`unpark_next` in producers/scripts/order.lua). A retried or released job keeps the key.

Each change is one script, and each settlement compares the token first. So a worker that lost its lease settles
nothing, and every script may be repeated.
"""
