"""A deterministic simulator of the scheduler, and a checker that judges what it did.

``clock`` is virtual time: an asyncio loop that jumps to its next timer, a wall clock that can be set, and worker
threads that run one at a time. ``world`` drives the real package on a real AsyncIOScheduler in it, with faults, and
records a ``history``; ``model`` says which targets each job owed; ``checker`` matches the two. All of it follows from
one seed: ``python -m tests.simulator --seed 7`` repeats an episode.
"""
