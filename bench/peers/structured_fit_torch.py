#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pruning to 2:4 with torch; a peer of pare_bench.

usage: structured_fit_torch.py wanda|nowag THREADS OUTPUTS INPUTS
       structured_fit_torch.py sparsegpt THREADS OUTPUTS INPUTS
       structured_fit_torch.py armor_sweep|armor_iteration THREADS OUTPUTS INPUTS BLOCK

wanda, nowag: scores, topk of each four, gather of the values. sparsegpt: inverse by Cholesky, its
upper factor, then columns in blocks of 128, as the method is published. armor_sweep: the steps of
pare::factor::armor as batched matrix products and solves, groups of all blocks at once, row by row;
one sweep. armor_iteration: one iteration as ARMOR's paper describes its loop: an Adam step on A, B
and S through autograd, then one group of every block, drawn by the L1 norm of its gradient, by the
best of six masks. All in f32. "seconds" is the fastest run; one JSON object goes to standard output.
"""
import itertools
import json
import sys

import torch_timing  # before torch

import torch

PAIRS = list(itertools.combinations(range(4), 2))


def weights(outputs, inputs):
    return torch.randn(outputs, inputs), torch.rand(inputs) + 0.1


def kept(w, score):
    index = score.view(-1, 4).topk(2, dim=1).indices.sort(dim=1).values
    return w.view(-1, 4).gather(1, index), index


def wanda(outputs, inputs):
    w, h = weights(outputs, inputs)
    root = h.sqrt()
    return lambda: kept(w, w.abs() * root)


def nowag(outputs, inputs):
    w, h = weights(outputs, inputs)
    root = h.sqrt()
    return lambda: kept(w, w.abs() * (root / (w.norm(dim=0) + 1e-5)))


def sparsegpt(outputs, inputs):
    weight, _ = weights(outputs, inputs)
    x = torch.randn(2 * inputs, inputs)
    covariance = x.T @ x / len(x)

    def run():
        w, h = weight.clone(), covariance.clone()
        h.diagonal().add_(0.01 * h.diagonal().mean())
        upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
        for begin in range(0, inputs, 128):
            end = min(begin + 128, inputs)
            part, factor = w[:, begin:end].clone(), upper[begin:end, begin:end]
            errors = torch.empty_like(part)
            mask = torch.zeros_like(part, dtype=torch.bool)
            for i in range(end - begin):
                if i % 4 == 0:
                    score = part[:, i:i + 4] ** 2 / factor.diagonal()[i:i + 4] ** 2
                    mask.scatter_(1, i + score.topk(2, dim=1, largest=False).indices, True)
                column = part[:, i].clone()
                pruned = column.masked_fill(mask[:, i], 0)
                error = (column - pruned) / factor[i, i]
                part[:, i:] -= error.unsqueeze(1) @ factor[i, i:].unsqueeze(0)
                part[:, i], errors[:, i] = pruned, error
            w[:, begin:end] = part
            w[:, end:] -= errors @ upper[begin:end, end:]
        return w

    return run


class Armor:
    """W [p, q, b, b], A [p, 1, b, b], S [p, q, b, b], B [1, q, b, b], h [1, q, 1, b]."""

    def __init__(self, outputs, inputs, block):
        w, h = weights(outputs, inputs)
        self.b, self.p, self.q = block, outputs // block, inputs // block
        self.h = (h / h.max()).view(1, self.q, 1, block)
        self.w = (w / 64).view(self.p, block, self.q, block).transpose(1, 2).contiguous()
        score = (self.w ** 2 * self.h).view(*self.w.shape[:3], -1, 4)
        self.mask = torch.zeros_like(score).scatter_(-1, score.topk(2).indices, 1).view_as(self.w)
        eye = torch.eye(block)
        self.a = eye.repeat(self.p, 1, 1, 1)
        self.right = eye.repeat(1, self.q, 1, 1)
        self.s = self.w * self.mask

    def loss(self):
        return (self.h * (self.w - self.a @ self.s @ self.right) ** 2).sum()


def solve(gram, cross):
    """X with X gram = cross."""
    gram.diagonal(dim1=-2, dim2=-1).add_(1e-6 * gram.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True))
    return torch.linalg.solve(gram, cross, left=False)


def groups_of_all_blocks(m):
    b, count = m.b, m.p * m.q
    left = m.a.mT @ m.a
    weighed = m.right * m.h
    gram = weighed @ m.right.mT
    target = (m.a.mT @ (m.w @ weighed.mT)).view(count, b, b)
    s = m.s.view(count, b, b)
    product = (m.s @ gram).view(count, b, b)
    left = left.expand(m.p, m.q, b, b).reshape(count, b, b)
    gram = gram.expand(m.p, m.q, b, b).reshape(count, b, b)
    first, second = (torch.tensor(x) for x in zip(*PAIRS))
    every = torch.arange(count)
    for t in range(b):
        size = left[:, t, t]
        gains = target[:, t] - (left[:, t].unsqueeze(1) @ product).squeeze(1)
        for g in range(0, b, 4):
            part = gram[:, g:g + 4, g:g + 4]
            old = s[:, t, g:g + 4].clone()
            e = gains[:, g:g + 4] + size.unsqueeze(1) * (part @ old.unsqueeze(2)).squeeze(2)
            aa, ab, bb = part[:, first, first], part[:, first, second], part[:, second, second]
            ea, eb = e[:, first], e[:, second]
            determinant = aa * bb - ab * ab + 1e-12
            xa, xb = (bb * ea - ab * eb) / determinant, (aa * eb - ab * ea) / determinant
            best = (ea * xa + eb * xb).argmax(1)
            new = torch.zeros_like(old)
            new[every, first[best]] = xa[every, best] / size
            new[every, second[best]] = xb[every, best] / size
            s[:, t, g:g + 4] = new
            delta = ((new - old).unsqueeze(1) @ gram[:, g:g + 4]).squeeze(1)
            product[:, t] += delta
            gains -= size.unsqueeze(1) * delta


def armor_sweep(outputs, inputs, block):
    m = Armor(outputs, inputs, block)

    def run():
        image = m.s @ m.right
        weighed = image * m.h
        m.a = solve((weighed @ image.mT).sum(1, keepdim=True), (m.w @ weighed.mT).sum(1, keepdim=True))
        image = m.a @ m.s
        turned = solve((image.mT @ image).sum(0, keepdim=True), (m.w.mT @ image).sum(0, keepdim=True))
        m.right = turned.mT.contiguous()
        groups_of_all_blocks(m)
        return m.loss()

    return run


def armor_iteration(outputs, inputs, block):
    m = Armor(outputs, inputs, block)
    count = m.p * m.q
    variables = [m.a.requires_grad_(), m.right.requires_grad_(), m.s.requires_grad_()]
    adam = torch.optim.Adam(variables, lr=1e-4)
    first, second = (torch.tensor(x) for x in zip(*PAIRS))
    every = torch.arange(count)

    def run():
        adam.zero_grad()
        loss = (m.h * (m.w - m.a @ (m.s * m.mask) @ m.right) ** 2).sum()
        loss.backward()
        adam.step()
        with torch.no_grad():
            norms = m.s.grad.abs().view(count, -1, 4).sum(-1) + 1e-20
            chosen = torch.multinomial(norms, 1).squeeze(1)
            row, column = chosen // (block // 4), chosen % (block // 4) * 4
            columns = column.unsqueeze(1) + torch.arange(4)
            s = (m.s * m.mask).view(count, block, block)
            s[every.unsqueeze(1), row.unsqueeze(1), columns] = 0
            root = m.h.sqrt()
            residual = ((m.a @ s.view_as(m.w) @ m.right - m.w) * root).view(count, block, block)
            a = m.a.expand_as(m.w).reshape(count, block, block)[every, :, row]
            right = (m.right * root).expand_as(m.w).reshape(count, block, block)
            part = right[every.unsqueeze(1), columns]
            c = (part @ (residual.mT @ a.unsqueeze(2))).squeeze(2)
            gram = part @ part.mT
            aa, ab, bb = gram[:, first, first] + 1e-9, gram[:, first, second], gram[:, second, second] + 1e-9
            determinant = aa * bb - ab * ab
            ca, cb = c[:, first], c[:, second]
            xa, xb = (bb * ca - ab * cb) / determinant, (aa * cb - ab * ca) / determinant
            best = (ca * xa + cb * xb).argmax(1)
            size = (a * a).sum(1) + 1e-8
            mask = m.mask.view(count, block, block)
            values = m.s.view(count, block, block)
            mask[every.unsqueeze(1), row.unsqueeze(1), columns] = 0
            for index, x in ((first[best], xa), (second[best], xb)):
                values[every, row, column + index] = -x[every, best] / size
                mask[every, row, column + index] = 1
        return loss

    return run


def main():
    make = {f.__name__: f for f in (wanda, nowag, sparsegpt, armor_sweep, armor_iteration)}[sys.argv[1]]
    threads, *sizes = map(int, sys.argv[2:])
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    slow = make in (sparsegpt, armor_sweep)
    with torch.set_grad_enabled(make is armor_iteration):
        run = make(*sizes)
        if make is armor_sweep:
            losses = [float(run()), float(run())]
            assert losses[1] < losses[0], losses
        best = torch_timing.fastest(run, budget=0.01 if slow else 0.5, warm_ups=0 if make is armor_sweep else 1)
    print(json.dumps({"seconds": best, "threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
