# SPDX-License-Identifier: Apache-2.0
"""all-MiniLM-L6-v2, a BERT encoder with mean pooling, forward and backward.

Sentences of a batch have equal numbers of tokens, so that nothing is padded or masked. A weight W
[out x in] of a linear layer may have been replaced by NAME.left [out x rank] and NAME.right
[rank x in].
"""
import numpy

LAYERS, HEADS = 6, 12
EPSILON = 1e-12  # of the layer norms, as in config.json


def erf(x):
    """Within 1.5e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26)."""
    t = 1 / (1 + 0.3275911 * numpy.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (
        -1.453152027 + t * 1.061405429))))
    return numpy.sign(x) * (1 - series * numpy.exp(-x * x))


def gelu(x):
    return 0.5 * x * (1 + erf(x * 0.5**0.5))


def gelu_slope(x):
    density = numpy.exp(-0.5 * x * x) * (2 * numpy.pi) ** -0.5
    return 0.5 * (1 + erf(x * 0.5**0.5)) + x * density


def softmax(scores):
    weights = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def split_heads(x):  # [batch, tokens, dim] to [batch, heads, tokens, dim / heads]
    return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)


def join_heads(x):
    x = x.transpose(0, 2, 1, 3)
    return x.reshape(*x.shape[:2], -1)


def transposed(x):
    return x.swapaxes(-1, -2)


class Encoder:
    """`listen(name, x)`, if given, is called with the input [batch, tokens, in] of each linear layer,
    named as its weight is; `listen_back(name, x, gradient)` with that of the loss at its output too."""

    def __init__(self, tensors):
        self.tensors = tensors

    def embed(self, ids, listen=None):
        """Unit embeddings [batch, dim] of ids [batch, tokens]."""
        pooled, _ = self._pooled(ids, listen)
        return pooled / numpy.linalg.norm(pooled, axis=1, keepdims=True)

    def backward(self, ids, directions, listen_back):
        """Gradients of <unit embedding, direction>, for each sentence its own direction."""
        pooled, layers = self._pooled(ids, None)
        norm = numpy.linalg.norm(pooled, axis=1, keepdims=True)
        unit = pooled / norm
        radial = (directions * unit).sum(axis=1, keepdims=True)
        d_pooled = (directions - radial * unit) / norm
        tokens = ids.shape[1]
        d_x = numpy.repeat(d_pooled[:, None, :] / tokens, tokens, axis=1)
        for layer in reversed(layers):
            d_x = self._layer_back(layer, d_x, listen_back)

    def _pooled(self, ids, listen):
        table = lambda name: self.tensors[f"embeddings.{name}_embeddings.weight"]
        x = table("word")[ids] + table("position")[: ids.shape[1]] + table("token_type")[0]
        x, _ = self._norm("embeddings.LayerNorm", x)
        layers = []
        for index in range(LAYERS):
            x, kept = self._layer(f"encoder.layer.{index}.", x, listen)
            layers.append(kept)
        return x.mean(axis=1), layers

    def _layer(self, at, x, listen):
        linear = lambda name, y: self._linear(at + name, y, listen)
        q, k, v = (split_heads(linear(f"attention.self.{name}", x))
                   for name in ("query", "key", "value"))
        p = softmax(q @ transposed(k) / q.shape[-1] ** 0.5)
        mixed = join_heads(p @ v)
        h, norm_1 = self._norm(at + "attention.output.LayerNorm",
                               x + linear("attention.output.dense", mixed))
        wide = linear("intermediate.dense", h)
        active = gelu(wide)
        y, norm_2 = self._norm(at + "output.LayerNorm", h + linear("output.dense", active))
        return y, (at, x, q, k, v, p, mixed, norm_1, h, wide, active, norm_2)

    def _layer_back(self, kept, d_y, listen):
        at, x, q, k, v, p, mixed, norm_1, h, wide, active, norm_2 = kept
        back = lambda name, y, d: self._linear_back(at + name, y, d, listen)
        d_sum = self._norm_back(norm_2, d_y)
        d_wide = back("output.dense", active, d_sum) * gelu_slope(wide)
        d_sum = self._norm_back(norm_1, d_sum + back("intermediate.dense", h, d_wide))
        d_mixed = split_heads(back("attention.output.dense", mixed, d_sum))
        d_p = d_mixed @ transposed(v)
        d_scores = p * (d_p - (d_p * p).sum(axis=-1, keepdims=True)) / q.shape[-1] ** 0.5
        return (d_sum
                + back("attention.self.query", x, join_heads(d_scores @ k))
                + back("attention.self.key", x, join_heads(transposed(d_scores) @ q))
                + back("attention.self.value", x, join_heads(transposed(p) @ d_mixed)))

    def _linear(self, name, x, listen):
        weight, bias = name + ".weight", self.tensors[name + ".bias"]
        if listen:
            listen(weight, x)
        if weight in self.tensors:
            return x @ self.tensors[weight].T + bias
        return x @ self.tensors[weight + ".right"].T @ self.tensors[weight + ".left"].T + bias

    def _linear_back(self, name, x, d_y, listen):
        weight = name + ".weight"
        listen(weight, x, d_y)
        return d_y @ self.tensors[weight]

    def _norm(self, name, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = numpy.sqrt((centred * centred).mean(axis=-1, keepdims=True) + EPSILON)
        normal, weight = centred / deviation, self.tensors[name + ".weight"]
        return normal * weight + self.tensors[name + ".bias"], (normal, deviation, weight)

    @staticmethod
    def _norm_back(kept, d_y):
        normal, deviation, weight = kept
        d = d_y * weight
        radial = normal * (d * normal).mean(axis=-1, keepdims=True)
        return (d - d.mean(axis=-1, keepdims=True) - radial) / deviation
