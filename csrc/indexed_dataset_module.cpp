// Python classes of the indexed dataset, and maps of other files.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>

#include "arrays.h"
#include "indexed_dataset.h"
#include "indexed_dataset_writer.h"
#include "mapped_file.h"

namespace py = pybind11;

namespace megasbp {
namespace {

py::dtype numpy_type(TokenType type) {
  switch (type) {
    case TokenType::kUint8: return py::dtype::of<uint8_t>();
    case TokenType::kInt8: return py::dtype::of<int8_t>();
    case TokenType::kInt16: return py::dtype::of<int16_t>();
    case TokenType::kUint16: return py::dtype::of<uint16_t>();
    case TokenType::kInt32: return py::dtype::of<int32_t>();
    case TokenType::kInt64: return py::dtype::of<int64_t>();
    case TokenType::kFloat32: return py::dtype::of<float>();
    case TokenType::kFloat64: return py::dtype::of<double>();
  }
  throw std::logic_error("token type");
}

TokenType token_type(const py::dtype &dtype) {
  for (const TokenType type : {TokenType::kUint8, TokenType::kInt8, TokenType::kInt16, TokenType::kUint16,
                               TokenType::kInt32, TokenType::kInt64, TokenType::kFloat32, TokenType::kFloat64}) {
    if (dtype.equal(numpy_type(type))) return type;
  }
  throw std::invalid_argument("dtype " + py::str(static_cast<py::object>(dtype)).cast<std::string>() +
                              " is not one of uint8, int8, int16, uint16, int32, int64, float32, float64");
}

// A read-only array over mapped memory; it keeps the owner, and so the mapping, alive.
py::array view(const py::object &owner, const py::dtype &dtype, int64_t count, const char *address) {
  py::array array(dtype, {count}, {dtype.itemsize()}, address, owner);
  py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return array;
}

py::array map_file(const std::string &path) {
  auto file = std::make_unique<MappedFile>(path);
  const MappedFile &mapped = *file;
  const py::capsule owner(file.get(), [](void *held) { delete static_cast<MappedFile *>(held); });
  file.release();
  return view(owner, py::dtype::of<uint8_t>(), mapped.size(), mapped.data());
}

// Tokens as integers: where they are stored as such, the file itself, else a checked copy.
py::array tokens_array(const py::object &owner, const Span &span) {
  const auto &dataset = owner.cast<const IndexedDataset &>();
  const char *address = dataset.address(span.start, span.count);
  if (dataset.type() != TokenType::kFloat32 && dataset.type() != TokenType::kFloat64) {
    return view(owner, numpy_type(dataset.type()), span.count, address);
  }
  IndexArray tokens(span.count);
  dataset.copy(span.start, span.count, tokens.mutable_data());
  return tokens;
}

template <auto Add>
void add(IndexedDatasetWriter &writer, const IndexArray &tokens, const IndexArray &lengths) {
  if (tokens.ndim() != 1 || lengths.ndim() != 1) throw std::invalid_argument("arrays must have one dimension");
  const int64_t *const token = tokens.data();
  const int64_t *const length = lengths.data();
  const int64_t counts[] = {tokens.size(), lengths.size()};
  py::gil_scoped_release release;
  (writer.*Add)(token, counts[0], length, counts[1]);
}

void add_single(IndexedDatasetWriter &writer, const IndexArray &tokens) {
  if (tokens.ndim() != 1) throw std::invalid_argument("tokens must have one dimension");
  const int64_t length = tokens.size();
  writer.add_documents(tokens.data(), length, &length, 1);
}

void translate_file_error(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const FileError &error) {
    errno = error.code();
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, error.path().c_str());
  }
}

}  // namespace
}  // namespace megasbp

void register_indexed_dataset(py::module_ &module) {
  using megasbp::IndexedDataset;
  using megasbp::IndexedDatasetWriter;
  py::register_local_exception_translator(&megasbp::translate_file_error);

  module.def("map_file", &megasbp::map_file, py::arg("path"),
             "uint8 [bytes]: a read-only map of a whole file, which keeps no descriptor open.");

  py::class_<IndexedDataset, std::shared_ptr<IndexedDataset>>(module, "IndexedDataset")
      .def(py::init<const std::string &, const std::string &, bool>(), py::arg("bin_path"), py::arg("idx_path"),
           py::arg("single"))
      .def("__len__", &IndexedDataset::documents)
      .def_property_readonly("tokens", &IndexedDataset::tokens)
      .def_property_readonly("dtype", [](const IndexedDataset &self) { return megasbp::numpy_type(self.type()); })
      .def_property_readonly("sequences", &IndexedDataset::sequences)
      .def_property_readonly("single", &IndexedDataset::single)
      .def_property_readonly("lengths",
                             [](const py::object &self) {
                               const auto &dataset = self.cast<const IndexedDataset &>();
                               return megasbp::view(self, py::dtype::of<int32_t>(), dataset.sequences(),
                                                    dataset.lengths());
                             })
      .def("document_lengths",
           [](const IndexedDataset &self) {
             py::array_t<int32_t> lengths(self.documents());
             int32_t *const out = lengths.mutable_data();
             py::gil_scoped_release release;
             self.document_lengths(out);
             return lengths;
           })
      .def("document",
           [](const py::object &self, int64_t document) {
             return megasbp::tokens_array(self, self.cast<const IndexedDataset &>().document(document));
           },
           py::arg("document"))
      .def("stream",
           [](const py::object &self, int64_t start, int64_t count) {
             return megasbp::tokens_array(self, {start, count});
           },
           py::arg("start"), py::arg("count"))
      .def("verify", &IndexedDataset::verify, py::call_guard<py::gil_scoped_release>());

  py::class_<IndexedDatasetWriter>(module, "IndexedDatasetWriter")
      // pybind11's function objects take the GIL themselves when they are called.
      .def(py::init([](const std::string &bin_path, const std::string &idx_path, const py::dtype &dtype,
                       megasbp::Follower bin_follower, megasbp::Follower idx_follower) {
             return std::make_unique<IndexedDatasetWriter>(bin_path, idx_path, megasbp::token_type(dtype),
                                                           std::move(bin_follower), std::move(idx_follower));
           }),
           py::arg("bin_path"), py::arg("idx_path"), py::arg("dtype"), py::arg("bin_follower") = nullptr,
           py::arg("idx_follower") = nullptr)
      .def("add_document", &megasbp::add_single, py::arg("tokens").noconvert())
      .def("add_document", &megasbp::add<&IndexedDatasetWriter::add_document>, py::arg("tokens").noconvert(),
           py::arg("lengths").noconvert())
      .def("add_documents", &megasbp::add<&IndexedDatasetWriter::add_documents>, py::arg("tokens").noconvert(),
           py::arg("lengths").noconvert())
      .def("add_framed",
           [](IndexedDatasetWriter &self, const py::array_t<uint32_t, py::array::c_style> &tokens,
              const py::array_t<int64_t, py::array::c_style> &bounds, int64_t first, int64_t last) {
             if (tokens.ndim() != 1 || bounds.ndim() != 1 || bounds.size() == 0) {
               throw std::invalid_argument("tokens and bounds must have one dimension, bounds at least one entry");
             }
             const int64_t documents = bounds.size() - 1;
             const int64_t *bound = bounds.data();
             for (int64_t i = 0; i <= documents; ++i) {
               if (bound[i] < (i == 0 ? 0 : bound[i - 1]) || bound[i] > tokens.size()) {
                 throw std::invalid_argument("bound " + std::to_string(i) + " is " + std::to_string(bound[i]) +
                                             "; bounds must rise from 0 to at most " + std::to_string(tokens.size()));
               }
             }
             py::gil_scoped_release release;
             self.add_framed(tokens.data(), bound, documents, first, last);
           },
           py::arg("tokens").noconvert(), py::arg("bounds").noconvert(), py::arg("first"), py::arg("last"))
      .def("add_copies",
           [](IndexedDatasetWriter &self, const IndexedDataset &source, const megasbp::IndexArray &documents) {
             if (documents.ndim() != 1) throw std::invalid_argument("documents must have one dimension");
             const int64_t *const numbers = documents.data();
             const int64_t count = documents.size();
             py::gil_scoped_release release;
             self.add_copies(source, numbers, count);
           },
           py::arg("source"), py::arg("documents").noconvert())
      .def("finish", &IndexedDatasetWriter::finish, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("documents", &IndexedDatasetWriter::documents)
      .def_property_readonly("sequences", &IndexedDatasetWriter::sequences)
      .def_property_readonly("single", &IndexedDatasetWriter::single)
      .def_property_readonly("tokens", &IndexedDatasetWriter::tokens);
}
