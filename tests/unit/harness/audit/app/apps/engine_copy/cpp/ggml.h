#pragma once
struct ggml_tensor;
