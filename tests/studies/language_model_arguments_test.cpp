// SPDX-License-Identifier: Apache-2.0

#include "language_model/arguments.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace studies_language_model_arguments_test {
namespace {

using namespace language_model;

Arguments parse(std::vector<const char*> words) {
  words.insert(words.begin(), "language_model");
  return parse_arguments(static_cast<int>(words.size()), words.data());
}

std::string refusal(const std::vector<const char*>& words) {
  try {
    parse(words);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "not refused";
}

TEST(LanguageModelArguments, APromptIsEnough) {
  const Arguments arguments = parse({"generate", "Why?"});
  EXPECT_EQ(arguments.command, Command::Generate);
  EXPECT_EQ(arguments.words, std::vector<std::string>{"Why?"});
  EXPECT_EQ(arguments.model, std::nullopt);
  EXPECT_EQ(arguments.tokens, std::nullopt);
  EXPECT_EQ(arguments.sampling.temperature, 0.2);
  EXPECT_EQ(arguments.sampling.top_k, std::nullopt);
  EXPECT_EQ(arguments.sampling.top_p, 0.9);
  EXPECT_EQ(arguments.sampling.min_p, 0);
  EXPECT_EQ(arguments.sampling.seed, 0u);
  EXPECT_EQ(arguments.kv, KvScalar::Float);
  EXPECT_EQ(arguments.weights, Weights::Stored);
  EXPECT_FALSE(arguments.raw);
  EXPECT_GE(arguments.threads, 1);
}

TEST(LanguageModelArguments, OptionsStandAnywhereBehindTheCommand) {
  const Arguments drawn =
      parse({"generate", "--top-k=7", "--raw", "Once", "--min-p", "0.1", "--seed", "3",
             "--temperature", "0", "--top-p", "1", "--tokens", "9", "--kv", "bf16"});
  EXPECT_EQ(drawn.sampling.top_k, 7);
  EXPECT_EQ(drawn.sampling.min_p, 0.1);
  EXPECT_EQ(drawn.sampling.seed, 3u);
  EXPECT_EQ(drawn.sampling.temperature, 0);
  EXPECT_EQ(drawn.sampling.top_p, 1);
  EXPECT_EQ(drawn.tokens, 9);
  EXPECT_EQ(drawn.kv, KvScalar::Bf16);
  EXPECT_TRUE(drawn.raw);
  const Arguments judged = parse({"perplexity", "a.txt", "--window=512", "b.txt", "--threads=2"});
  EXPECT_EQ(judged.command, Command::Perplexity);
  EXPECT_EQ(judged.words, (std::vector<std::string>{"a.txt", "b.txt"}));
  EXPECT_EQ(judged.window, 512);
  EXPECT_EQ(judged.threads, 2);
  const Arguments sparse = parse({"perplexity", "a", "--attention", "s2o,window,oracle",
                                  "--density", "0.5,.125", "--sample", "b", "--plot=c.svg"});
  EXPECT_EQ(sparse.attention, (std::vector<std::string>{"s2o", "window", "oracle"}));
  EXPECT_EQ(sparse.density, (std::vector<double>{0.5, 0.125}));
  EXPECT_EQ(sparse.plot, "c.svg");
  EXPECT_EQ(sparse.sample, "b");
  const Arguments factored =
      parse({"perplexity", "a", "--svd", "0.9,0.5", "--metric=plain,covariance,elementwise",
             "--sample", "b", "--sample-tokens", "100", "--gradients", "c", "--factors", "bf16"});
  EXPECT_EQ(factored.svd.shares, (std::vector<double>{0.9, 0.5}));
  EXPECT_EQ(factored.svd.metrics, (std::vector<SvdMetric>{SvdMetric::Plain, SvdMetric::Covariance,
                                                          SvdMetric::Elementwise}));
  EXPECT_EQ(factored.sample, "b");
  EXPECT_EQ(factored.svd.sample_tokens, 100);
  EXPECT_EQ(factored.svd.gradients, "c");
  EXPECT_TRUE(factored.svd.bf16);
  EXPECT_FALSE(parse({"perplexity", "a", "--svd=1", "--metric=plain"}).svd.bf16);
  const Arguments structured = parse(
      {"perplexity", "a", "--two-four", "nowag,armor", "--dense-sparse=0.5,0.25", "--sample=b"});
  EXPECT_EQ(
      structured.structured.two_four,
      (std::vector<models::TwoFourWay>{models::TwoFourWay::Nowag, models::TwoFourWay::Armor}));
  EXPECT_EQ(structured.structured.dense_sparse, (std::vector<double>{0.5, 0.25}));
  const Arguments edited = parse({"edit", "a", "--sample=b", "--subject", "Rome", "--donor=Paris",
                                  "--relation", " lies in", "--neighbours", "Bern,Wien", "--others",
                                  " is in", "--layers=2,4", "--strengths=1,2.5"});
  EXPECT_EQ(edited.command, Command::Edit);
  EXPECT_EQ(edited.edit.subject + edited.edit.relation, "Rome lies in");
  EXPECT_EQ(edited.edit.donor, "Paris");
  EXPECT_EQ(edited.edit.neighbours, (std::vector<std::string>{"Bern", "Wien"}));
  EXPECT_EQ(edited.edit.others, std::vector<std::string>{" is in"});
  EXPECT_EQ(edited.edit.layers, (std::vector<Index>{2, 4}));
  EXPECT_EQ(edited.edit.strengths, (std::vector<double>{1, 2.5}));
  const Arguments latent =
      parse({"perplexity", "a", "--latent", "192,64", "--convert=svd,care_paper", "--sample=b"});
  EXPECT_EQ(latent.latent.widths, (std::vector<Index>{192, 64}));
  EXPECT_EQ(latent.latent.conversions,
            (std::vector<Conversion>{Conversion::Svd, Conversion::CarePaper}));
  const Arguments of_latents = parse({"generate", "Why?", "--latent=192", "--convert=mha2mla_care",
                                      "--sample=b", "--sample-tokens", "64"});
  EXPECT_EQ(of_latents.latent.widths, std::vector<Index>{192});
  EXPECT_EQ(of_latents.latent.conversions, std::vector<Conversion>{Conversion::Mha2MlaCare});
  EXPECT_EQ(of_latents.sample, "b");
  EXPECT_EQ(of_latents.svd.sample_tokens, 64);
  EXPECT_EQ(parse({"bench", "--latent=96", "--convert=transmla", "--sample=b"}).latent.conversions,
            std::vector<Conversion>{Conversion::TransMla});
  const Arguments masked =
      parse({"perplexity", "a", "--heads", "uniform:x,zero:y:z", "--repeat", "1024"});
  ASSERT_EQ(masked.heads.masks.size(), 2u);
  EXPECT_EQ(masked.heads.masks[0].mode, HeadMode::Uniform);
  EXPECT_EQ(masked.heads.masks[0].file, "x");
  EXPECT_EQ(masked.heads.masks[1].mode, HeadMode::Zero);
  EXPECT_EQ(masked.heads.masks[1].file, "y:z");
  EXPECT_EQ(masked.repeat, 1024);
  const Arguments budget = parse(
      {"perplexity", "a", "--kv", "head-budget:.3,.1", "--evict", "keydiff", "--sample", "b"});
  EXPECT_EQ(budget.budget.ratios, (std::vector<double>{.3, .1}));
  EXPECT_EQ(budget.budget.scores(), Evict::KeyDiff);
  EXPECT_EQ(masked.budget.scores(), Evict::SnapKv);
  EXPECT_EQ(budget.kv, KvScalar::Float);
  const Arguments routed = parse({"perplexity", "a", "--experts", "4:2,8:1", "--groups", "activity",
                                  "--router=ridge", "--sample", "b", "--scaled"});
  EXPECT_EQ(routed.experts.shares[1].groups, 8);
  EXPECT_EQ(routed.experts.shares[1].used, 1);
  EXPECT_EQ(routed.experts.chosen_routers(), std::vector{language_model::Router::Ridge});
  EXPECT_TRUE(routed.experts.by_activity.value_or(false) && routed.experts.scaled);
  EXPECT_EQ(budget.experts.chosen_routers().size(), 3u);
  const Arguments hunting = parse({"perplexity", "a", "--heads", "hunt", "--pool", "x",
                                   "--rounds=2", "--sample", "y", "--hunt-tokens=9"});
  EXPECT_TRUE(hunting.heads.hunt && hunting.heads.any());
  EXPECT_EQ(hunting.heads.pool, "x");
  EXPECT_EQ(hunting.heads.hunt_rounds(), 2);
  EXPECT_EQ(hunting.heads.most_hunt_tokens(), 9);
  EXPECT_EQ(masked.heads.hunt_rounds(), 4);
  EXPECT_EQ(masked.heads.most_hunt_tokens(), 256);
  EXPECT_EQ(parse({"perplexity", "a", "--score-documents", "x"}).heads.score_documents, "x");

  const Arguments heads = parse({"heads", "--share", "0.1", "--random=3", "--prompts", "2"});
  EXPECT_EQ(heads.command, Command::Heads);
  EXPECT_EQ(heads.heads.share, 0.1);
  EXPECT_EQ(heads.heads.random, 3u);
  EXPECT_EQ(heads.heads.prompts, 2);
  EXPECT_EQ(heads.out, std::nullopt);
  EXPECT_EQ(parse({"bench", "--prompt", "64"}).prompt, 64);
  EXPECT_EQ(parse({"bench", "--weights", "bf16"}).weights, Weights::Bf16);
  EXPECT_EQ(parse({"perplexity", "x", "--weights=f32"}).weights, Weights::Float);
  EXPECT_EQ(parse({"bench", "--weights", "bf16_pairs"}).weights, Weights::Bf16Pairs);
  const Arguments dumped = parse({"dump", "a", "--layers", "0,29", "--activations", "--out=x"});
  EXPECT_EQ(dumped.layers, (std::vector<Index>{0, 29}));
  EXPECT_TRUE(dumped.activations);
  EXPECT_EQ(dumped.out, "x");
}

TEST(LanguageModelArguments, HelpIsAskedForWithAndWithoutACommand) {
  for (const auto& words : std::vector<std::vector<const char*>>{
           {"--help"}, {"-h"}, {"generate", "--help"}, {"perplexity", "-h"}, {"dump", "--help"}})
    EXPECT_TRUE(parse(words).help);
}

TEST(LanguageModelArguments, WhatMakesNoSenseIsRefused) {
  EXPECT_EQ(refusal({"generate", ""}), "the prompt is empty");
  EXPECT_EQ(refusal({}),
            "got '', wanted generate, perplexity, bench, dump, edit, heads or speculate first");
  EXPECT_EQ(
      refusal({"answer"}),
      "got 'answer', wanted generate, perplexity, bench, dump, edit, heads or speculate first");
  EXPECT_EQ(refusal({"generate"}),
            "got 0 words behind the command, wanted one, the prompt (in quotes)");
  EXPECT_EQ(refusal({"generate", "What", "is"}),
            "got 2 words behind the command, wanted one, the prompt (in quotes)");
  EXPECT_EQ(refusal({"perplexity"}), "got 0 words behind the command, wanted text files");
  EXPECT_EQ(refusal({"bench", "x"}), "got 1 words behind the command, wanted none");
  EXPECT_EQ(refusal({"dump", "x", "y"}), "got 2 words behind the command, wanted one, a text file");
  // An option of another command would be ignored.
  EXPECT_EQ(refusal({"perplexity", "x", "--seed", "1"}), "unknown option '--seed'");
  EXPECT_EQ(refusal({"generate", "x", "--window", "64"}), "unknown option '--window'");
  EXPECT_EQ(refusal({"generate", "x", "--top-p", "0"}),
            "--top-p: got '0', wanted a share above 0, at most 1");
  EXPECT_EQ(refusal({"generate", "x", "--temperature", "nan"}),
            "--temperature: got 'nan', wanted a number from 0");
  EXPECT_EQ(refusal({"generate", "x", "--temperature", "inf"}),
            "--temperature: got 'inf', wanted a number from 0");
  EXPECT_EQ(refusal({"generate", "x", "--min-p", "-1"}),
            "--min-p: got '-1', wanted a share from 0 to 1");
  EXPECT_EQ(refusal({"generate", "x", "--top-k", "0"}),
            "--top-k: got '0', wanted a whole number from 1 to 2^20");
  EXPECT_EQ(refusal({"perplexity", "x", "--window", "1"}),
            "--window: got '1', wanted a whole number from 2 to 2^20");
  EXPECT_EQ(refusal({"bench", "--kv", "f16"}), "--kv: got 'f16', wanted f32 or bf16");
  EXPECT_EQ(refusal({"perplexity", "x", "--attention", "s2o"}),
            "--attention and --sample go together");
  EXPECT_EQ(refusal({"perplexity", "x", "--attention", "all", "--sample", "y"}),
            "--attention: got 'all', wanted names of mean_pool, antidiagonal, pbs, s2o, proxy, "
            "window, sampled and oracle, by commas");
  EXPECT_EQ(refusal({"perplexity", "x", "--attention", "s2o,", "--sample", "y"}),
            "--attention: got '', wanted names of mean_pool, antidiagonal, pbs, s2o, proxy, "
            "window, sampled and oracle, by commas");
  for (const char* const none : {"0", "1.5", "nan", "-.5"})
    EXPECT_EQ(
        refusal({"perplexity", "x", "--density", (std::string(".5,") + none).c_str()}),
        "--density: got '" + std::string(none) + "', wanted shares above 0, at most 1, by commas");
  EXPECT_EQ(refusal({"perplexity", "x", "--plot", "a.svg"}),
            "--plot: wanted --attention or --svd with it");
  EXPECT_EQ(parse({"perplexity", "x", "--svd=1", "--metric=plain", "--plot=a.svg"}).plot, "a.svg");
  EXPECT_EQ(refusal({"perplexity", "x", "--plot", ""}),
            "--plot: got '', wanted the name of a file");
  EXPECT_EQ(refusal({"generate", "x", "--plot", "a.svg"}), "unknown option '--plot'");
  EXPECT_EQ(refusal({"perplexity", "x", "--attention", "s2o", "--sample", "x"}),
            "--sample: got 'x', wanted a text that is not judged");
  EXPECT_EQ(refusal({"perplexity", "x", "--attention", "s2o", "--sample", "y", "--kv", "bf16"}),
            "got --kv bf16, wanted f32 with --attention");
  const auto judging = [](std::vector<const char*> words) {
    words.insert(words.begin(), {"perplexity", "x"});
    return refusal(words);
  };
  EXPECT_EQ(
      judging({"--two-four", "nm"}),
      "--two-four: got 'nm', wanted names of magnitude, wanda, nowag, sparsegpt and armor, by "
      "commas");
  EXPECT_EQ(judging({"--dense-sparse", "0", "--sample=y"}),
            "--dense-sparse: got '0', wanted shares above 0, at most 1, by commas");
  EXPECT_EQ(judging({"--two-four=wanda"}), "--two-four and --dense-sparse need --sample");
  EXPECT_EQ(judging({"--dense-sparse=0.5", "--sample=y", "--heads=zero:f"}),
            "got --two-four or --dense-sparse beside another method");
  EXPECT_EQ(refusal({"edit", "x"}), "edit needs --sample");
  EXPECT_EQ(refusal({"edit", "x", "--sample=x"}),
            "--sample: got 'x', wanted a text that is not judged");
  EXPECT_EQ(refusal({"edit", "x", "--sample=y", "--strengths=-1"}),
            "--strengths: got '-1', wanted numbers from 0 to 1000, by commas");
  EXPECT_EQ(refusal({"edit", "x", "--sample=y", "--subject="}),
            "--subject: got '', wanted some words");
  EXPECT_EQ(judging({"--svd", "0"}), "--svd: got '0', wanted shares above 0, at most 1, by commas");
  EXPECT_EQ(judging({"--svd", "0.5"}), "--svd and --metric go together");
  EXPECT_EQ(judging({"--metric", "plain"}), "--svd and --metric go together");
  EXPECT_EQ(judging({"--svd=1", "--metric", "fisher"}),
            "--metric: got 'fisher', wanted names of plain, inputs, covariance and elementwise");
  EXPECT_EQ(judging({"--svd=1", "--metric=plain,inputs"}),
            "--metric inputs and covariance need --sample");
  EXPECT_EQ(judging({"--svd=1", "--metric=elementwise"}),
            "--metric elementwise needs the mean squares of each weight's gradient: --gradients "
            "FOLDER");
  EXPECT_EQ(judging({"--svd=1", "--metric=plain", "--gradients=g"}),
            "got --gradients without --metric elementwise");
  EXPECT_EQ(judging({"--svd=1", "--metric=plain", "--sample=y"}),
            "got --sample, wanted none with --metric plain and elementwise");
  EXPECT_EQ(judging({"--svd=1", "--metric=covariance", "--sample=x"}),
            "--sample: got 'x', wanted a text that is not judged");
  EXPECT_EQ(judging({"--factors", "f16"}), "--factors: got 'f16', wanted f32 or bf16");
  EXPECT_EQ(judging({"--factors", "bf16"}), "got --factors without --svd");
  EXPECT_EQ(
      judging({"--svd=1", "--metric=plain", "--heads=zero:f"}),
      "got several of --attention, --heads, --svd, --latent and --kv head-budget, wanted one of "
      "them");
  EXPECT_EQ(judging({"--latent=64", "--convert=svd,mla", "--sample=y"}),
            "--convert: got 'mla', wanted names of svd, svd_joint, care_uniform, care_joint, care, "
            "care_paper, transmla, transmla_fold, mha2mla and mha2mla_care");
  EXPECT_EQ(refusal({"generate", "x", "--latent=64,96", "--convert=care", "--sample=y"}),
            "got several widths or conversions, wanted one --latent and one --convert");
  EXPECT_EQ(refusal({"bench", "--latent=64", "--convert=care,svd", "--sample=y"}),
            "got several widths or conversions, wanted one --latent and one --convert");
  EXPECT_EQ(refusal({"generate", "x", "--latent=64", "--sample=y"}),
            "--latent and --convert go together");
  EXPECT_EQ(refusal({"bench", "--latent=64", "--convert=svd"}), "--latent needs --sample");
  EXPECT_EQ(refusal({"generate", "x", "--sample=y"}), "--sample: wanted --latent with it");
  EXPECT_EQ(refusal({"bench", "--sample-tokens=9"}), "--sample-tokens: wanted --latent with it");
  EXPECT_EQ(judging({"--latent=64,1", "--convert=svd", "--sample=y"}),
            "--latent: got '1', wanted whole numbers from 2, by commas");
  EXPECT_EQ(judging({"--latent=64", "--sample=y"}), "--latent and --convert go together");
  EXPECT_EQ(judging({"--convert=svd", "--sample=y"}), "--latent and --convert go together");
  EXPECT_EQ(judging({"--latent=64", "--convert=care"}), "--latent needs --sample");
  EXPECT_EQ(judging({"--latent=64", "--convert=care", "--sample=x"}),
            "--sample: got 'x', wanted a text that is not judged");
  EXPECT_EQ(
      judging({"--latent=64", "--convert=svd", "--sample=y", "--heads=zero:f"}),
      "got several of --attention, --heads, --svd, --latent and --kv head-budget, wanted one of "
      "them");
  EXPECT_EQ(judging({"--kv=head-budget:.3"}), "--kv head-budget needs --sample");
  EXPECT_EQ(judging({"--kv=head-budget:1.5"}),
            "--kv: got '1.5', wanted shares above 0, at most 1, by commas");
  EXPECT_EQ(
      judging({"--kv=head-budget:.3", "--sample=y", "--heads=zero:f"}),
      "got several of --attention, --heads, --svd, --latent and --kv head-budget, wanted one of "
      "them");
  EXPECT_EQ(judging({"--evict", "lru"}), "--evict: got 'lru', wanted snapkv or keydiff");
  EXPECT_EQ(judging({"--experts", "4:5", "--sample", "b"}),
            "--experts: got '4:5', wanted GROUPS:USED, such as 4:2, by commas");
  EXPECT_EQ(judging({"--experts", "4", "--sample", "b"}),
            "--experts: got '4', wanted GROUPS:USED, such as 4:2, by commas");
  EXPECT_EQ(judging({"--experts", "4:2"}), "--experts needs --sample");
  EXPECT_EQ(judging({"--experts", "4:2", "--svd", "1", "--metric", "plain"}),
            "got --experts beside another method");
  EXPECT_EQ(judging({"--router", "best", "--experts", "4:2"}),
            "--router: got 'best', wanted names of oracle, ridge and random, by commas");
  EXPECT_EQ(judging({"--groups", "all"}), "--groups: got 'all', wanted index or activity");
  EXPECT_EQ(judging({"--scaled"}), "got --router, --groups or --scaled without --experts");
  EXPECT_EQ(judging({"--evict", "snapkv"}), "got --evict without --kv head-budget");
  EXPECT_EQ(judging({"--heads=zero:f", "--rounds=4"}),
            "got --rounds or --hunt-tokens without --heads hunt");
  EXPECT_EQ(judging({"--heads=zero:f", "--hunt-tokens=9"}),
            "got --rounds or --hunt-tokens without --heads hunt");
  EXPECT_EQ(judging({"--heads", "f"}),
            "--heads: got 'f', wanted uniform:FILE or zero:FILE, by commas, or hunt");
  EXPECT_EQ(judging({"--heads", "zero:"}),
            "--heads: got 'zero:', wanted uniform:FILE or zero:FILE, by commas, or hunt");
  EXPECT_EQ(judging({"--heads", "hunt", "--sample=y"}), "--heads hunt and --pool go together");
  EXPECT_EQ(judging({"--heads=zero:f", "--pool=y"}), "--heads hunt and --pool go together");
  EXPECT_EQ(judging({"--heads", "hunt", "--pool=y"}), "--heads hunt needs --sample");
  EXPECT_EQ(judging({"--heads=zero:f", "--score-documents=y"}),
            "got both --heads and --score-documents");
  EXPECT_EQ(judging({"--score-documents=y", "--kv=bf16"}),
            "got --kv bf16, wanted f32 with --heads");
  EXPECT_EQ(judging({"--heads", "zero:f", "--kv=bf16"}), "got --kv bf16, wanted f32 with --heads");
  EXPECT_EQ(judging({"--repeat", "8"}), "got --repeat without --heads, --svd or --latent");
  EXPECT_EQ(judging({"--heads=zero:f", "--repeat", "1025"}),
            "--repeat: got 1025, wanted at most half of --window, without --tokens");
  EXPECT_EQ(judging({"--heads=zero:f", "--repeat", "8", "--tokens=9"}),
            "--repeat: got 8, wanted at most half of --window, without --tokens");
  EXPECT_EQ(refusal({"heads", "x"}), "got 1 words behind the command, wanted none");
  EXPECT_EQ(refusal({"heads", "--share", "0"}),
            "--share: got '0', wanted a share above 0, at most 1");
  EXPECT_EQ(refusal({"bench", "--weights", "q4"}),
            "--weights: got 'q4', wanted stored, f32, bf16 or bf16_pairs");
  EXPECT_EQ(refusal({"dump", "x", "--layers", "1,,2"}),
            "--layers: got '', wanted whole numbers from 0, by commas");
}

TEST(LanguageModelArguments, DraftersHaveHeadsAndBudgets) {
  const Arguments many = parse({"speculate", "a", "--draft", "prompt,early:10,linear:3",
                                "--head=dense,rank:72", "--budget", "4,64,auto", "--branch=6",
                                "--chain", "--check", "--sample", "b", "--prompts=9"});
  EXPECT_TRUE(many.draft.check);
  EXPECT_EQ(many.command, Command::Speculate);
  EXPECT_EQ(many.draft.drafters,
            (std::vector<DraftName>{{"prompt"}, {"early", 10}, {"linear", 3}}));
  EXPECT_EQ(many.draft.heads, (std::vector<DraftName>{{"dense"}, {"rank", 72}}));
  EXPECT_EQ(many.draft.budgets, (std::vector<std::optional<pare::Index>>{4, 64, {}}));
  EXPECT_EQ(many.draft.branch, 6);
  EXPECT_EQ(many.draft.prompts, 9);
  EXPECT_TRUE(many.draft.chain);
  EXPECT_EQ(many.draft.drafters[1].text(), "early:10");
  const Arguments one = parse({"generate", "x", "--draft", "prompt", "--check"});
  EXPECT_TRUE(one.draft.check);
  EXPECT_EQ(one.draft.budgets, std::vector<std::optional<pare::Index>>{16});
}

TEST(LanguageModelArguments, DraftersThatMakeNoSenseAreRefused) {
  const auto drafting = [](std::vector<const char*> options) {
    options.insert(options.begin(), {"speculate", "x"});
    return refusal(options);
  };
  EXPECT_EQ(drafting({}), "speculate needs --draft");
  for (const char* name : {"early", "prompt:3", "eagle:3", "dense", "early:0", "early:x", ":"})
    EXPECT_NE(drafting({"--draft", name}).find("--draft: got '"), std::string::npos) << name;
  for (const char* name : {"rank", "dense:2", "prompt", "svd:3"})
    EXPECT_NE(drafting({"--draft=early:2", "--head", name}).find("--head: got '"),
              std::string::npos)
        << name;
  EXPECT_EQ(drafting({"--draft=prompt", "--budget", "65"}),
            "--budget: got '65', wanted whole numbers from 2 to 64, or auto");
  EXPECT_EQ(drafting({"--draft=prompt", "--branch", "0"}),
            "--branch: got '0', wanted a whole number from 1 to 64");
  const char* const needs = "--draft linear, and --head rank and tokens, need --sample";
  EXPECT_EQ(drafting({"--draft=linear:2"}), needs);
  EXPECT_EQ(drafting({"--draft=early:2", "--head=dense,rank:9"}), needs);
  EXPECT_EQ(drafting({"--draft=prompt", "--sample=y"}),
            "--sample: wanted --draft linear, or --head rank or tokens, with it");
  EXPECT_EQ(drafting({"--draft=linear:2", "--sample=x"}),
            "--sample: got 'x', wanted a text that is not judged");
  EXPECT_EQ(refusal({"generate", "x", "--draft=prompt,early:2"}),
            "got several of --draft, --head or --budget, wanted one of each");
  EXPECT_EQ(refusal({"generate", "x", "--draft=prompt", "--latent=64"}),
            "got both --draft and --latent");
  EXPECT_EQ(refusal({"generate", "x", "--check"}), "got --check or --chain without --draft");
}

}  // namespace
}  // namespace studies_language_model_arguments_test
