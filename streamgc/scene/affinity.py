"""Which cells of a frame belong to the same person: any cell can be asked, and what it asks for is learned.

A cell of the /4 grid votes for the middle of its person, answers with an embedding and asks with a query. That another
cell is of the same person has the logit

    embedding(other) · query(own) + bias(own) - SATURATION · d² / (1 + d²)
    d = |vote(other) - vote(own)| / OFFSET_UNIT

(dynamic masks as in CondInst, Tian et al., ECCV 2020, with votes for its relative coordinates).
`streamgc.networks.segmenter` trains the same sum.
"""

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]

EMBEDDING = 8
"""Channels of embedding and query; a query has a bias besides."""
OFFSET_UNIT = 64.0
"""Pixels per unit of votes and their distances, so that the network's values are near one."""
SATURATION = 10.0
"""What votes that are far apart take from a logit at most."""


def votes_of(offset: Plane) -> Plane:
    """Where each /4 cell sees the middle of its person: f32 (H/4, W/4, 2), rows and columns in pixels."""
    height, width = offset.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=2)
    return np.asarray(offset + (grid * 4 + 1.5), np.float32)


def logits(votes: Plane, embedding: Plane, own_vote: Plane, own_query: Plane) -> Plane:
    """Logits f32 (cells,) that cells are of one person: of their votes (cells, 2) in pixels and embeddings (cells,
    EMBEDDING), and the asking cell's vote (2,) and query (EMBEDDING + 1,)."""
    distance = (votes - own_vote) / OFFSET_UNIT
    square = (distance * distance).sum(axis=1)
    answer = embedding @ own_query[:EMBEDDING] + own_query[EMBEDDING]
    return np.asarray(answer - SATURATION * square / (1 + square), np.float32)
