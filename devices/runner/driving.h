// A candidate driven along a trajectory: its outputs measured against the reference's as they come,
// so that three numbers an output are all that is kept of them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "trajectory.h"

// protocol.py's DrivenLayer, of an output that comes some rows at a time.
class DrivenLayer {
public:
    // `reference`: what it is measured against; `fits`: whether the shapes are the same.
    DrivenLayer(std::string name, const Reference & reference, bool fits)
        : name(std::move(name)), reference_(reference.values), rows_(reference.rows), width_(reference.width), fits_(fits) {
        for (size_t row = 0; fits && row < rows_; ++row) {
            const float * wanted = reference_ + row * width_;
            Lanes squares{};
            in_lanes([&](size_t i, size_t lane) { squares[lane] += (double) wanted[i] * wanted[i]; });
            squares_ += sum(squares);
        }
        floor_ = kFloor * squares_ / (double) rows_;
    }

    const std::string name;

    bool is_whole() const { return !fits_ || next_ == rows_; }

    // Measures the next rows; the reference's, or null where they do not fit.
    const float * add(const float * own, size_t rows) {
        fits_ = fits_ && rows <= rows_ - next_;
        if (!fits_) {
            return nullptr;
        }
        const float * wanted = reference_ + next_ * width_;
        next_ += rows;
        if (std::memcmp(own, wanted, rows * width_ * sizeof(float)) != 0) {
            for (size_t row = 0; row < rows; ++row) add_row(own + row * width_, wanted + row * width_);
        }
        return wanted;
    }

    nlohmann::ordered_json json() const {
        const double count = (double) (rows_ * width_);
        const double error = std::sqrt(errors_ / (double) rows_);
        const double gain = gains_ / (double) rows_;
        const double shift = squares_ > 0 ? differences_ / count / std::sqrt(squares_ / count) : 0;
        if (!fits_ || !std::isfinite(squares_ + error + gain + shift)) {
            return {{"name", name}, {"error", "Infinity"}, {"gain", 0.0}, {"shift", 0.0}};
        }
        return {{"name", name}, {"error", error}, {"gain", gain}, {"shift", shift}};
    }

private:
    static constexpr double kFloor = 0.01;
    // So that the compiler can use vectors: it must not reorder sums by itself.
    static constexpr size_t kLanes = 8;
    using Lanes = std::array<double, kLanes>;

    static double sum(const Lanes & lanes) {
        double total = 0;
        for (double lane : lanes) total += lane;
        return total;
    }

    // Calls `each` with every place of a row and a lane for it.
    template <typename Each>
    void in_lanes(Each each) const {
        size_t i = 0;
        for (; i + kLanes <= width_; i += kLanes) {
            for (size_t lane = 0; lane < kLanes; ++lane) each(i + lane, lane);
        }
        for (; i < width_; ++i) each(i, 0);
    }

    void add_row(const float * own, const float * wanted) {
        Lanes squares{}, errors{}, gains{}, differences{};
        in_lanes([&](size_t i, size_t lane) {
            const double reference = wanted[i];
            const double by = own[i] - reference;
            squares[lane] += reference * reference;
            errors[lane] += by * by;
            gains[lane] += by * reference;
            differences[lane] += by;
        });
        differences_ += sum(differences);
        // 0 only where the whole reference is: any error is then without bounds.
        const double weight = std::max(sum(squares), floor_);
        if (const double error = sum(errors); error != 0) {
            errors_ += error / weight;
            gains_ += sum(gains) / weight;
        }
    }

    const float * reference_;
    size_t rows_;
    size_t width_;
    bool fits_;
    size_t next_ = 0;
    double squares_ = 0;  // of the whole reference
    double floor_ = 0;
    double errors_ = 0;
    double gains_ = 0;
    double differences_ = 0;
};

// One image's, in the order in which they first came.
class DrivenLayers {
public:
    // Measures the next rows of an output that has `total` of them. The reference's rows, to take
    // their place; null where the reference has none or is of another shape.
    const float * measure(const Trajectory & along, const std::string & name, const float * own, size_t rows, size_t width, size_t total) {
        const Reference * reference = along.find(name);
        if (!reference) {
            return nullptr;
        }
        return of(name, *reference, reference->rows == total && reference->width == width).add(own, rows);
    }

    // Of an image that was cut short, those that came whole.
    nlohmann::ordered_json json() const {
        nlohmann::ordered_json told = nlohmann::ordered_json::array();
        for (const DrivenLayer & layer : all_) {
            if (layer.is_whole()) told.push_back(layer.json());
        }
        return told;
    }

private:
    DrivenLayer & of(const std::string & name, const Reference & reference, bool fits) {
        const auto found = std::find_if(all_.begin(), all_.end(), [&](const DrivenLayer & one) { return one.name == name; });
        return found == all_.end() ? all_.emplace_back(name, reference, fits) : *found;
    }

    std::vector<DrivenLayer> all_;
};

// One image's way along a trajectory.
struct Drive {
    const Trajectory & along;
    DrivenLayers & measured;
    // Tiles that the candidate itself made of the image.
    size_t own_tiles;
    // Tiles that are run: the trajectory's, once it is known that they fit the vision graph.
    size_t tiles = own_tiles;
};
