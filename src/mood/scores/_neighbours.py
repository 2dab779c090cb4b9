"""How far the k-th nearest of many rows is, exactly, at the cost of rough products.

One product in bf16 (float32 where the processor has no instructions for bf16) bounds all half squared distances from
both sides, by the rounding that was really made. Some tens of rows for each query may then be the k-th; products in
float32, and then differences, leave one or two of them, and float64 decides. So the rough product decides how long it
takes, and never what comes out.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mood.scores._rows import blocks, row_by_row

FEWEST = 128
"""Queries from which rounding the bank for a rough product pays."""
GROUPS = 2048
"""Of the bank's rows; the k-th largest of their best products is nearly the k-th of all, and much sooner found."""
PAIRS = 1024
"""Rows looked up at a time; an eighth of that took twice as long on two cores, twice as many no less."""
OPEN = 1024
"""Groups that a query may leave open; with more, such as in a bank of equal rows, it meets every row in float64."""
FAR = -1e4
"""What stands for no row: the others are half squared distances of rows no longer than 1."""


def kth_distance(rows: Tensor, bank: Tensor, k: int, read: Callable[[Tensor], Tensor]) -> Tensor:
    """(N,) float64, the Euclidean distance from each row to the k-th nearest row of the bank.

    Memory: the bank in bf16 and float32, and blocks.

    Args:
        rows: (N, D) floating.
        bank: (M, D) floating, M ≥ k.
        k: which neighbour, from 1.
        read: (n, D) float64 rows → (n, D) no longer than 1, of the rows and of the bank.
    """
    if len(rows) < FEWEST or len(bank) <= GROUPS:
        return row_by_row(lambda block: _met(read(block), bank, k, read), rows, width=max(bank.shape[1], 2 * k, 1024))
    rough = Rough.of(bank, k, read)
    parts = [_screened(read(block), rough, bank, k, read) for (block,) in blocks(rows, width=len(rough.table) // 32)]
    return torch.cat(parts)


def _met(queries: Tensor, bank: Tensor, k: int, read: Callable[[Tensor], Tensor]) -> Tensor:
    """(n,) distances of (n, D) queries that meet every row of the bank in float64."""
    best = queries.new_zeros(len(queries), 0)
    place = torch.zeros(len(queries), 0, dtype=torch.int64)
    start = 0
    for (known,) in blocks(bank, width=max(len(queries), bank.shape[1])):
        neighbours = read(known)
        half = neighbours.square().sum(1) / 2
        # ‖q − b‖²/2 without the term of the query, which does not change the order.
        far = torch.addmm(half, queries, neighbours.T, alpha=-1)  # (n, m)
        best = torch.cat([best, far], 1)
        place = torch.cat([place, torch.arange(start, start + len(half)).expand(len(queries), -1)], 1)
        best, kept = best.topk(min(k, best.shape[1]), dim=1, largest=False)
        place = place.gather(1, kept)
        start += len(half)
    kth = read(bank[place[:, k - 1]].to(torch.float64))
    return (queries - kth).square_().sum(1).sqrt()


@dataclass(frozen=True, slots=True, eq=False)
class Rough:
    """A bank b about its mean, rounded twice, and what a bf16 product needs to bound distances.

    One product gives q·b − (‖b‖² − its mean)/2: the nearer the larger, and small numbers, which lose little in bf16.

    Attributes:
        table: (G · g, D + 3 and zeros) bf16 or float32; row i belongs to group i mod G. Rows beyond the bank are far.
        fine: (M, D) float32.
        squares: (M,) float32, ‖b‖².
        groups: G.
        centre: (D,) float32; any point would do.
        length: the largest ‖b‖.
        error: the largest ‖b − its row in the table‖.
    """

    table: Tensor
    fine: Tensor
    squares: Tensor
    groups: int
    centre: Tensor
    length: float
    error: float

    @staticmethod
    def of(bank: Tensor, k: int, read: Callable[[Tensor], Tensor]) -> "Rough":
        """The rows of a bank, rounded."""
        count, width = bank.shape
        fine = torch.empty(count, width)
        for start in range(0, count, PAIRS):
            fine[start : start + PAIRS] = read(bank[start : start + PAIRS].to(torch.float64))
        centre = fine.mean(0)
        groups = min(count, max(GROUPS, 8 * k))
        table = torch.zeros(-(-count // groups) * groups, -(-(width + 3) // 32) * 32, dtype=_kind())
        table[count:, width] = FAR
        square, errors = torch.empty(count), torch.empty(count)
        for start in range(0, count, PAIRS):
            rows = fine[start : start + PAIRS]
            place = table[start : start + len(rows), :width]
            rows -= centre
            place[:] = rows
            square[start : start + PAIRS] = rows.square().sum(1)
            errors[start : start + PAIRS] = torch.linalg.vector_norm(rows - place.float(), dim=1)
        rest = (square.mean() - square) / 2
        for column in range(width, width + 3):
            table[:count, column] = rest
            rest -= table[:count, column].float()
        return Rough(table, fine, square, groups, centre, float(square.max().sqrt()), float(errors.max()))

    def products(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """(n, G · g) products with (n, D) float32 rows about the centre, and (n, 1) how far off these are.

        What the last rounding of each product takes away comes on top.
        """
        width = queries.shape[1]
        rounded = torch.zeros(len(queries), self.table.shape[1], dtype=self.table.dtype)
        rounded[:, :width] = queries
        rounded[:, width : width + 3] = 1
        lengths = torch.linalg.vector_norm(queries, dim=1, keepdim=True)
        errors = torch.linalg.vector_norm(queries - rounded[:, :width].float(), dim=1, keepdim=True)
        # Cauchy–Schwarz for what was rounded away; then sums in float32, of numbers that are no longer than these.
        sums = 2 * self.table.shape[1] * torch.finfo(torch.float32).eps
        off = errors * self.length + lengths * self.error
        return rounded @ self.table.T, off + sums * ((lengths + errors) * self.length + 1)

    def by_products(self, queries: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        """(pairs,) float32 squared distances of queries, in order, from bank rows, and how far off these may be."""
        counts = torch.bincount(row, minlength=len(queries))
        ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            pairs = torch.sparse_csr_tensor(
                ends, column, queries.new_zeros(len(row)), (len(queries), len(self.fine)), check_invariants=False
            )
            # Products of these pairs alone, without copies of their rows: a twentieth of the time of differences.
            products = torch.sparse.sampled_addmm(pairs, queries, self.fine.T, beta=0.0).values()
        own, theirs = queries.square().sum(1)[row], self.squares[column]
        # Three sums of D terms and two sums of these (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
        off = (queries.shape[1] + 16) * torch.finfo(torch.float32).eps / 2 * (own.sqrt() + theirs.sqrt()).square_()
        return own + theirs - 2 * products, off

    def by_differences(self, queries: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        """The same, much nearer where a distance is small, and slower."""
        found = torch.empty(len(row))
        for start in range(0, len(row), PAIRS):
            part = slice(start, start + PAIRS)
            away = self.fine.index_select(0, column[part]).sub_(queries.index_select(0, row[part]))
            found[part] = away.square_().sum(1)
        eps = torch.finfo(torch.float32).eps
        return found, (queries.shape[1] + 8) * eps * found + 8 * eps * found.sqrt() + 16 * eps**2


def _screened(queries: Tensor, rough: Rough, bank: Tensor, k: int, read: Callable[[Tensor], Tensor]) -> Tensor:
    """(n,) distances of (n, D) queries, of which float64 decides what the rounded numbers leave open."""
    centred = (queries - rough.centre).float()
    row, column, fallen = _candidates(*rough.products(centred), rough.groups, k)
    found = torch.empty(len(queries), dtype=torch.float64)
    if fallen.any():
        found[fallen] = _met(queries[fallen], bank, k, read)
    rest = (~fallen).nonzero()[:, 0]
    if not len(rest):
        return found
    counts = torch.bincount(row, minlength=len(queries))
    slot = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    ends = torch.full((2, len(queries), int(counts.max())), torch.inf)
    row_ends = torch.empty(2, len(queries))
    left = nearer = torch.ones(len(row), dtype=torch.bool)
    for measured in (rough.by_products, rough.by_differences):
        squared, off = measured(centred, row[left], column[left])
        ends[0, row[left], slot[left]], ends[1, row[left], slot[left]] = squared - off, squared + off
        # The k-th smallest lies between these two.
        row_ends[:, rest] = ends.kthvalue(k, dim=2).values[:, rest]
        nearer = ends[1, row, slot] < row_ends[0, row]
        left = ~nearer & (ends[0, row, slot] <= row_ends[1, row])
    rank = k - torch.bincount(row[nearer], minlength=len(queries))
    row, column = row[left], column[left]
    exact = torch.empty(len(row), dtype=torch.float64)
    for start in range(0, len(row), PAIRS):
        part = slice(start, start + PAIRS)
        exact[part] = read(bank[column[part]].to(torch.float64)).sub_(queries[row[part]]).square_().sum(1)
    # By row, and within a row by distance.
    order = exact.argsort(stable=True)
    order = order[row[order].argsort(stable=True)]
    counts = torch.bincount(row, minlength=len(queries))
    first = counts.cumsum(0) - counts
    found[rest] = exact[order[first[rest] + rank[rest] - 1]].sqrt()
    return found


def _candidates(products: Tensor, off: Tensor, groups: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of query and bank row among which are the k nearest, in the order of the queries.

    Args:
        products: (n, G · g) rough, the nearer the larger.
        off: (n, 1) how far off they may be beside their own last rounding.
        groups: G.
        k: how many.

    Returns:
        (pairs,) queries and (pairs,) bank rows; and (n,) bool, the queries for which there would be too many.
    """
    grouped = products.view(len(products), -1, groups)  # (n, g, G)
    best = grouped.amax(1).float()
    # Half a digit, and a little for this line itself.
    own = 0.6 * torch.finfo(products.dtype).eps
    # k groups have a row that is larger, so the k-th largest of all is.
    least = (best - own * best.abs() - off).topk(k, dim=1).values[:, -1:]
    open_groups = best + own * best.abs() + off >= least
    fallen = open_groups.sum(1) > max(OPEN, 4 * k)
    row, group = (open_groups & ~fallen[:, None]).nonzero(as_tuple=True)
    values = grouped[row, :, group].float()  # (pairs, g)
    pair, member = (values + own * values.abs() + off[row] >= least[row]).nonzero(as_tuple=True)
    return row[pair], member * groups + group[pair], fallen


def _kind() -> torch.dtype:
    """What rough products are made in: bf16 where a processor multiplies it natively, and adds up in float32."""
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native and torch.backends.mkldnn.is_available() else torch.float32
