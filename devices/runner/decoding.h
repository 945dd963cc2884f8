// How the next token is chosen and what ends an answer: protocol.py's Decoding.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "chunks.h"
#include "fault.h"
#include "llama.h"
#include "request.h"
#include "splitmix64.h"
#include "step.h"

class Chooser {
public:
    Chooser(const Decoding & decoding, const llama_vocab * vocab) : decoding_(decoding), vocab_(vocab) {
        for (const std::string & spelled : decoding.stop) {
            const std::vector<llama_token> ids = tokenize(vocab, spelled, true);
            if (ids.size() != 1) {
                throw Fault("request", "'" + spelled + "' is " + std::to_string(ids.size()) +
                                           " tokens and cannot end an answer, which one token does");
            }
            stop_.insert(ids.front());
        }
    }

    bool ends(int id) const { return stop_.empty() ? llama_vocab_is_eog(vocab_, id) : stop_.count(id) > 0; }

    // `answer`: the ids chosen so far.
    int choose(const Step & step, const std::vector<int> & answer) const {
        if (decoding_.repeat_penalty == 1 && decoding_.temperature == 0) {
            return step.greedy();
        }
        std::vector<double> scores(step.logits().begin(), step.logits().end());
        for (int id : std::set<int>(answer.begin(), answer.end())) {
            scores[id] = scores[id] > 0 ? scores[id] / decoding_.repeat_penalty : scores[id] * decoding_.repeat_penalty;
        }
        if (decoding_.temperature == 0) {
            return (int) (std::max_element(scores.begin(), scores.end()) - scores.begin());
        }
        return drawn(scores, answer.size());
    }

private:
    int drawn(const std::vector<double> & scores, size_t place) const {
        std::vector<int> ids(scores.size());
        std::iota(ids.begin(), ids.end(), 0);
        const size_t kept = decoding_.top_k ? std::min((size_t) decoding_.top_k, ids.size()) : ids.size();
        std::partial_sort(ids.begin(), ids.begin() + (long) kept, ids.end(), [&](int a, int b) {
            return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
        });
        ids.resize(kept);
        std::vector<double> summed;
        for (int id : ids) {
            const double before = summed.empty() ? 0 : summed.back();
            summed.push_back(before + std::exp((scores[id] - scores[ids[0]]) / decoding_.temperature));
        }
        const double share = std::ldexp((double) (splitmix64(decoding_.seed, place + 1) >> 11), -53);
        const auto found = std::upper_bound(summed.begin(), summed.end(), share * summed.back());
        return ids[(size_t) std::min(found - summed.begin(), (long) kept - 1)];
    }

    const Decoding decoding_;
    const llama_vocab * vocab_;
    std::set<int> stop_;
};
