#include "plan.h"

#include "failure.h"
#include "tensor_list.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <locale>
#include <map>
#include <set>
#include <sstream>
#include <string_view>

namespace rollforge::contract_double {
namespace {

constexpr std::string_view magic = "rollforge-double-plan 1";
constexpr std::size_t alignment = 64;
/// Largest file that is read, and longest line of a header.
constexpr std::size_t max_file = std::size_t{1} << 36;
constexpr std::size_t max_line = 512;

struct SizeField {
    char const* name;
    std::size_t Shape::* member;
    std::size_t least;
    std::size_t most;
};

constexpr std::array<SizeField, 16> size_fields = {{
    {"vocab_size", &Shape::vocab_size, 1, 1 << 22},
    {"vocab_padded", &Shape::vocab_padded, 1, 1 << 22},
    {"hidden_size", &Shape::hidden_size, 1, 1 << 16},
    {"intermediate_size", &Shape::intermediate_size, 1, 1 << 18},
    {"num_layers", &Shape::num_layers, 1, 1024},
    {"num_heads", &Shape::num_heads, 1, 1024},
    {"num_kv_heads", &Shape::num_kv_heads, 1, 1024},
    {"head_dim", &Shape::head_dim, 2, 1024},
    {"qk_norm", &Shape::qk_norm, 0, 1},
    {"fused_mlp", &Shape::fused_mlp, 0, 1},
    {"max_batch_size", &Shape::max_batch_size, 1, 1 << 16},
    {"max_num_tokens", &Shape::max_num_tokens, 1, 1 << 20},
    {"max_seq_len", &Shape::max_seq_len, 2, 1 << 20},
    {"tokens_per_block", &Shape::tokens_per_block, 1, 1024},
    {"kv_blocks", &Shape::kv_blocks, 1, 1 << 24},
    {"sliding_window", &Shape::sliding_window, 0, 1 << 20},
}};

struct CapabilityName {
    char const* name;
    uint64_t bit;
};

constexpr std::array<CapabilityName, 8> capability_names = {{
    {"refit_in_place", RF_CAN_REFIT_IN_PLACE},
    {"rebuild", RF_CAN_REBUILD},
    {"refit_from_host", RF_CAN_REFIT_FROM_HOST},
    {"cache_salt", RF_CAN_CACHE_SALT},
    {"return_sequences", RF_CAN_RETURN_SEQUENCES},
    {"min_p", RF_CAN_MIN_P},
    {"report_cancel", RF_CAN_REPORT_CANCEL},
    {"allotted_time", RF_CAN_ALLOTTED_TIME},
}};

std::size_t next_aligned(std::size_t offset) { return (offset + alignment - 1) / alignment * alignment; }

/// Where a tensor's numbers lie.
struct Extent {
    std::size_t tensor;
    std::size_t offset;
    std::size_t line;
};

/// Reads one plan, line by line.
class Parser {
public:
    Parser(uint8_t const* data, std::size_t size, std::string const& name) : data_(data), size_(size), name_(name) {}

    Plan run() {
        next_line();
        check(line_ == magic, "must be \"" + std::string(magic) + "\", found \"" + shown(line_) + "\"");
        for (next_line(); line_ != "data"; next_line()) read_line();
        check_shape();
        check_tensors();
        copy_data();
        return std::move(plan_);
    }

private:
    [[noreturn]] void fail(std::size_t line, std::string const& sentence) const {
        throw Failure(RF_INVALID_ARGUMENT, name_ + ": line " + std::to_string(line) + ": " + sentence);
    }

    void check(bool rule, std::string const& sentence) const {
        if (!rule) fail(number_, sentence);
    }

    /// Returns the start of a text, fit to be shown in a message of one line.
    static std::string shown(std::string_view text) {
        std::string out(text.substr(0, 64));
        for (char& c : out)
            if (c < ' ' || c > '~') c = '?';
        return out;
    }

    void next_line() {
        ++number_;
        std::size_t const left = size_ - place_;
        std::size_t const most = left < max_line ? left : max_line;
        auto const* const start = reinterpret_cast<char const*>(data_) + place_;
        auto const* const end = most == 0 ? nullptr : static_cast<char const*>(std::memchr(start, '\n', most));
        check(end != nullptr, left <= max_line ? "the header must end with a line \"data\", found the end of the file"
                                               : "must be at most 511 bytes, found a longer line");
        line_ = std::string_view(start, static_cast<std::size_t>(end - start));
        place_ += line_.size() + 1;
        split();
    }

    void split() {
        words_.clear();
        std::size_t at = 0;
        while ((at = line_.find_first_not_of(' ', at)) != std::string_view::npos) {
            std::size_t const end = std::min(line_.find(' ', at), line_.size());
            words_.emplace_back(line_.substr(at, end - at));
            at = end;
        }
    }

    std::size_t number(std::string const& field, std::string const& text, std::size_t least, std::size_t most) const {
        std::size_t value = 0;
        auto const* const end = text.data() + text.size();
        auto const result = std::from_chars(text.data(), end, value);
        bool const whole = result.ec == std::errc() && result.ptr == end;
        check(whole && value >= least && value <= most, field + " must be a whole number from " + std::to_string(least) +
                                                            " to " + std::to_string(most) + ", found " + shown(text));
        return value;
    }

    void words(std::size_t count) const {
        check(words_.size() == count, "must be " + std::to_string(count) + " words, found \"" + shown(line_) + "\"");
    }

    void read_line() {
        check(!words_.empty(), "must not be empty");
        std::string const& key = words_[0];
        if (key == "tensor") return read_tensor();
        if (key == "fault") return read_fault();
        words(2);
        if (key == "lacks") return read_lack();
        check(fields_.insert(key).second, key + " must be there once, found it again");
        if (key == "identity") {
            plan_.identity = words_[1];
        } else if (key == "refittable") {
            plan_.refittable = number(key, words_[1], 0, 1) == 1;
        } else if (key == "rms_norm_eps") {
            read_epsilon();
        } else {
            read_size(key);
        }
    }

    void read_size(std::string const& key) {
        for (SizeField const& field : size_fields) {
            if (key != field.name) continue;
            plan_.shape.*field.member = number(key, words_[1], field.least, field.most);
            return;
        }
        check(false, "must be a field of a plan, found " + shown(key));
    }

    void read_epsilon() {
        std::istringstream in(words_[1]);
        in.imbue(std::locale::classic());
        float& value = plan_.shape.rms_norm_eps;
        bool const whole = in >> value && in.peek() == std::char_traits<char>::eof();
        check(whole && value > 0 && value < 1, "rms_norm_eps must lie between 0 and 1, found " + shown(words_[1]));
    }

    void read_lack() {
        for (CapabilityName const& capability : capability_names) {
            if (words_[1] != capability.name) continue;
            plan_.lacks |= capability.bit;
            return;
        }
        check(false, "lacks must name a capability, found " + shown(words_[1]));
    }

    void read_fault() {
        words(4);
        uint64_t const nth = number("nth", words_[2], 0, 1'000'000'000);
        try {
            plan_.faults.push_back(Fault::parse(words_[1], nth, words_[3]));
        } catch (Failure const& failure) {
            fail(number_, failure.what());
        }
    }

    void read_tensor() {
        words(5);
        check(plan_.tensors.size() < 65'536, "must be at most the 65536th tensor, found one more");
        Tensor tensor;
        tensor.name = words_[1];
        tensor.dtype = -1;
        for (int32_t dtype : {RF_F32, RF_F16, RF_BF16})
            if (words_[2] == dtype_name(dtype)) tensor.dtype = dtype;
        check(tensor.dtype >= 0, "dtype must be f32, f16 or bf16, found " + shown(words_[2]));
        tensor.count = number("count", words_[3], 1, max_file);
        std::size_t const offset = number("offset", words_[4], 0, max_file);
        bool const fresh = names_.emplace(tensor.name, plan_.tensors.size()).second;
        check(fresh, "tensors must differ in name, found " + shown(tensor.name) + " again");
        extents_.push_back({plan_.tensors.size(), offset, number_});
        plan_.tensors.push_back(std::move(tensor));
    }

    void check_shape() const {
        for (SizeField const& field : size_fields)
            check(fields_.count(field.name) == 1, std::string(field.name) + " must be given before \"data\"");
        check(fields_.count("rms_norm_eps") == 1, "rms_norm_eps must be given before \"data\"");
        Shape const& shape = plan_.shape;
        check(shape.vocab_padded >= shape.vocab_size, "vocab_padded must be at least vocab_size (" +
                  std::to_string(shape.vocab_size) + "), found " + std::to_string(shape.vocab_padded));
        check(shape.num_heads % shape.num_kv_heads == 0, "num_kv_heads must divide num_heads (" +
                  std::to_string(shape.num_heads) + "), found " + std::to_string(shape.num_kv_heads));
        check(shape.head_dim % 2 == 0, "head_dim must be even, found " + std::to_string(shape.head_dim));
    }

    void check_tensors() const {
        std::set<std::string> known;
        for (Expected const& expected : expected_tensors(plan_.shape)) {
            known.insert(expected.name);
            auto const found = names_.find(expected.name);
            if (found == names_.end()) {
                check(!expected.required, "tensor " + expected.name + " is missing");
                continue;
            }
            std::size_t const index = found->second;
            std::size_t const count = plan_.tensors[index].count;
            if (count != expected.count && count != expected.padded)
                fail(extents_[index].line, expected.name + " must have " + std::to_string(expected.count) +
                                               " elements, found " + std::to_string(count));
        }
        for (Extent const& extent : extents_) {
            std::string const& name = plan_.tensors[extent.tensor].name;
            if (known.count(name) == 0) fail(extent.line, "a model of this shape has no tensor " + shown(name));
        }
    }

    void copy_data() {
        std::size_t const start = next_aligned(place_);
        std::size_t const have = start < size_ ? size_ - start : 0;
        for (Extent const& extent : extents_) {
            Tensor& tensor = plan_.tensors[extent.tensor];
            std::size_t const bytes = tensor.count * element_size(tensor.dtype);
            if (extent.offset > have || bytes > have - extent.offset)
                fail(extent.line, tensor.name + " must end within the data (" + std::to_string(have) +
                                      " bytes), found offset " + std::to_string(extent.offset) + " and " +
                                      std::to_string(bytes) + " bytes");
            uint8_t const* const from = data_ + start + extent.offset;
            tensor.bytes.assign(from, from + bytes);
        }
    }

    uint8_t const* data_;
    std::size_t size_;
    std::string name_;
    std::size_t place_ = 0;
    std::size_t number_ = 0;
    std::string_view line_;
    std::vector<std::string> words_;
    std::set<std::string> fields_;
    std::map<std::string, std::size_t> names_;
    std::vector<Extent> extents_;
    Plan plan_;
};

std::string header(Plan const& plan) {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    out.precision(9);
    out << magic << '\n';
    for (SizeField const& field : size_fields) out << field.name << ' ' << plan.shape.*field.member << '\n';
    out << "rms_norm_eps " << plan.shape.rms_norm_eps << '\n';
    out << "refittable " << (plan.refittable ? 1 : 0) << '\n';
    if (!plan.identity.empty()) out << "identity " << plan.identity << '\n';
    for (CapabilityName const& capability : capability_names)
        if ((plan.lacks & capability.bit) != 0) out << "lacks " << capability.name << '\n';
    for (Fault const& fault : plan.faults) {
        std::string const argument = fault.argument.empty() ? "" : ":" + fault.argument;
        out << "fault " << fault.point << ' ' << fault.nth << ' ' << fault.what << argument << '\n';
    }
    std::size_t offset = 0;
    for (Tensor const& tensor : plan.tensors) {
        out << "tensor " << tensor.name << ' ' << dtype_name(tensor.dtype) << ' ' << tensor.count << ' ' << offset << '\n';
        offset = next_aligned(offset + tensor.bytes.size());
    }
    out << "data\n";
    return out.str();
}

}  // namespace

Plan Plan::read(std::string const& path) {
    std::ifstream in(path, std::ios::binary | std::ios::ate);
    if (!in) throw Failure(RF_INVALID_ARGUMENT, path + ": cannot be opened: " + std::strerror(errno));
    auto const size = static_cast<std::streamoff>(in.tellg());
    if (size < 0 || static_cast<uint64_t>(size) > max_file)
        throw Failure(RF_INVALID_ARGUMENT, path + ": must be a file of at most 64 GiB");
    std::vector<uint8_t> bytes(static_cast<std::size_t>(size));
    in.seekg(0);
    if (!in.read(reinterpret_cast<char*>(bytes.data()), size))
        throw Failure(RF_INVALID_ARGUMENT, path + ": cannot be read: " + std::strerror(errno));
    return parse(bytes.data(), bytes.size(), path);
}

Plan Plan::parse(uint8_t const* data, std::size_t size, std::string const& name) {
    return Parser(data, size, name).run();
}

std::vector<uint8_t> Plan::serialize() const {
    std::string const head = header(*this);
    std::vector<uint8_t> out(head.begin(), head.end());
    out.resize(next_aligned(out.size()));
    std::size_t const start = out.size();
    for (Tensor const& tensor : tensors) {
        out.resize(start + next_aligned(out.size() - start));
        out.insert(out.end(), tensor.bytes.begin(), tensor.bytes.end());
    }
    return out;
}

}  // namespace rollforge::contract_double
