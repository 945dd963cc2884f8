// What is read from one step's logits: the greedy token, its rivals, and log-probabilities.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "fault.h"
#include "results.h"

// Log-softmax in double over the float32 logits.
class Step {
public:
    Step(const float * logits, int n_vocab) : logits_(logits, logits + n_vocab) {
        for (float logit : logits_) {
            if (!std::isfinite(logit)) {
                throw Fault("decode", "the logits are not finite");
            }
        }
        // max_element gives the first of equals: the lowest id on a tie.
        greedy_ = (int) (std::max_element(logits_.begin(), logits_.end()) - logits_.begin());
        const double peak = logits_[greedy_];
        double sum = 0;
        for (float logit : logits_) sum += std::exp(logit - peak);
        normalizer_ = peak + std::log(sum);
    }

    const std::vector<float> & logits() const { return logits_; }
    int greedy() const { return greedy_; }
    double logprob(int id) const { return logits_[id] - normalizer_; }

    // The `count` likeliest ids, likeliest first; on a tie the lowest first.
    std::vector<TokenLogprob> top(int count) const {
        std::vector<int> ids(logits_.size());
        std::iota(ids.begin(), ids.end(), 0);
        const size_t kept = std::min((size_t) count, ids.size());
        std::partial_sort(ids.begin(), ids.begin() + (long) kept, ids.end(), [this](int a, int b) {
            return logits_[a] != logits_[b] ? logits_[a] > logits_[b] : a < b;
        });
        std::vector<TokenLogprob> rivals;
        for (size_t i = 0; i < kept; ++i) rivals.push_back({ids[i], logprob(ids[i])});
        return rivals;
    }

private:
    std::vector<float> logits_;
    int greedy_ = 0;
    double normalizer_ = 0;
};
