// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What --help of the language_model study says.

namespace language_model {

inline constexpr const char* usage_text =
    R"(usage: language_model generate PROMPT [options]
       language_model perplexity FILE... [options]
       language_model bench [options]
       language_model dump FILE [options]
       language_model edit FILE... --sample OTHER [options]
       language_model heads [options]
       language_model speculate FILE... [options]

A language model of Llama's kind on Pare's kernels. The model is SmolLM2-135M-Instruct, which
`cmake/bootstrap.sh model` fetches, or a GGUF file of yours with a "smollm" vocabulary.

generate answers a prompt, its text as it comes:
  --tokens N           at most                                   (256)
  --temperature X      0: always the most likely token           (0.2)
  --top-k N            draws of the N most likely                (all)
  --top-p X            and of those that have X of the rest      (0.9)
  --min-p X            and that are X times as likely as the best   (0)
  --seed N             of the draws                              (0)
  --raw                continues PROMPT as it is, instead of answering it
  --latent N --convert HOW --sample FILE
                       caches latents of N numbers per token and layer instead of keys and values,
                       as with perplexity; says how many bytes a token takes

  --draft HOW          speculates: drafts from the text itself (prompt), from the first N blocks
                       (early:N), or by N linear heads that are fitted on --sample (linear:N)
  --head HEAD          of the last two: dense, rank:N (the best on --sample), or tokens:N (those
                       that --sample has most often)             (dense)
  --budget N           tokens of a draft and its root, 2 to 64, or auto: by what was measured   (16)
  --branch N           of trees, tokens behind one               (4)
  --chain              no tree
  --check              generates without drafts too, and fails if the texts differ

perplexity judges texts:
  --tokens N           of each text, at most                     (8192)
  --window N           tokens are foretold from the N before at most: texts are cut into windows,
                       whose first tokens are not judged         (2048)
  --attention LIST     beside exact attention some of mean_pool, antidiagonal, pbs, s2o, proxy,
                       window, sampled and oracle                (none)
  --density LIST       shares of the work that they do, on the sample   (0.25)
  --sample FILE        another text, on which each layer's threshold is found
  --plot FILE          draws perplexity against density, or bytes of factors, as SVG
  --heads LIST         instead, uniform:FILE: the heads of the file attend to all keys alike, or
                       zero:FILE: without them; or hunt: finds those that cost least when uniform
  --pool FILE          with --heads hunt: the heads to choose from
  --rounds N           with --heads hunt: of one head each       (4)
  --hunt-tokens N      of --sample, on which they are chosen     (256)
  --score-documents FILE
                       instead, how much more a text costs with the heads of the file uniform, also
                       with its first half twice and with its tokens shuffled
  --svd LIST           instead, shares of their parameters that factors of the blocks' linear layers
                       keep, each of rank floor(share m n / (m + n)), at least 1
  --metric LIST        of plain, inputs, covariance and elementwise: errors are weighed with nothing,
                       mean squares or products of the inputs on --sample, or with --gradients
  --latent LIST        instead, numbers per token and layer of latents that keys and values are made
                       from
  --convert LIST       of svd, svd_joint, care_uniform, care_joint, care and care_paper: by the weights
                       alone, or mean products of the inputs on --sample; one latent of both; ranks
                       of layers adjusted by energy, or by the paper's score; and of transmla and
                       transmla_fold: latent attention, of whose width a head is the rotary key; and
                       of mha2mla and mha2mla_care: a quarter of each key head stays rotary, and one
                       latent of the rest, by the weights alone or the inputs
  --sample-tokens N    of --sample, at most         (32768, with --experts 2048)
  --gradients FOLDER   of blk.N.LINEAR.squares.npy, mean squares of the gradient of each weight
  --factors f32|bf16   type of factors                           (f32)
  --repeat N           with --heads, --svd or --latent: judges the first N tokens of a text where they come a
                       second time

  --two-four LIST      instead, the blocks' linear layers in 2:4 form, by magnitude, wanda, nowag,
                       sparsegpt or armor (between dense blocks of 32), by the inputs on --sample;
                       beside dense layers and low rank of as many bytes, all in bf16
  --dense-sparse LIST  and dense times sparse layers of such shares of the bytes

  --experts LIST       instead, feed-forward layers cut into groups of neurons, of which each token
                       uses some: 4:2 is two of four; on --sample routers and groups are found
  --router LIST        of oracle (the groups of least error), ridge (a linear router fitted to it)
                       and random                                (all three)
  --groups index|activity  groups of neighbours, or of neurons that are active together   (index)
  --scaled             what groups make, times groups / used     (as it is)

  --kv head-budget:LIST --sample FILE
                       heads keep such shares of the first half of each window, of which the second is
                       judged: alike many, or by scores within layers or across them, in groups that
                       are found on the sample
  --evict snapkv|keydiff  scores of tokens                       (snapkv)

bench measures speed:
  --prompt N           tokens at once                            (512)
  --tokens N           one by one behind them                    (64)
  --latent N --convert HOW --sample FILE
                       the same again with a cache of latents

dump writes what a text makes of layers, as .npy into a folder:
  --out FOLDER         made if it is not there                   (dump)
  --layers LIST        from 0                                    (0)
  --tokens N           of the text, at most                      (1024)
  --activations        inputs of linear layers too, not only their mean products

edit gives a subject the answer of another one, by a rank-one edit of one block's feed-forward layer,
and shows what that changes, on texts too:
  --subject WORDS      (The Eiffel Tower)
  --donor WORDS        whose answer it gets                      (The Colosseum)
  --relation WORDS     behind the subject                        ( is located in the city of)
  --others LIST        the same in other words
  --neighbours LIST    subjects that are to keep their answers
  --layers LIST        blocks, one edited at a time              (6,9,12,15,18)
  --strengths LIST     how far the block's output moves: 1 to what the donor has there   (1)
  --sample FILE        another text, which shows what inputs the layers have
  --sample-tokens N    of it, at most                            (32768)
  --tokens N           of each text, at most                     (8192)

heads finds the heads that copy, by prompts that ask for a passage by its key:
  --out FILE           lines "layer head", the best first        (heads.txt)
  --share X            of all heads                              (0.05)
  --prompts N                                                    (8)
  --random SEED        writes as many others instead

speculate measures drafters on texts:
  --draft, --head, --budget LISTS, --branch, --chain, --sample, --sample-tokens, --temperature,
  --seed               as with generate
  --check              fails if a text is not that of plain decoding
  --prompts N          of each text, evenly spaced               (8)
  --prompt N           tokens of each                            (512)
  --tokens N           behind each                               (64)

all of them:
  --model FILE                                       (from PARE_MODELS, else build/models)
  --weights FORM       of linear layers: stored (as the file has them), f32, bf16, or bf16_pairs,
                       which rounds what a prompt's layers take to bf16 too   (stored)
  --kv f32|bf16        type of keys and values                   (f32)
  --threads N          threads of OpenMP wait busily: where other programs run too, take fewer, or
                       set OMP_WAIT_POLICY=passive               (all)
  --help
)";

}  // namespace language_model
