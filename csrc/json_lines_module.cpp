// Python class of the fast reader of JSON lines.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "json_lines.h"

namespace py = pybind11;

namespace megasbp {
namespace {

py::array_t<int64_t> copied(const std::vector<int64_t> &values) {
  return py::array_t<int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

}  // namespace
}  // namespace megasbp

void register_json_lines(py::module_ &module) {
  using megasbp::TextBatch;
  py::class_<TextBatch>(module, "TextBatch")
      .def(py::init([](std::string text, std::string id, std::optional<std::string> title, int64_t characters,
                       int64_t line_bytes, std::string place) {
             return TextBatch({std::move(text), std::move(id), std::move(title), characters, line_bytes},
                              std::move(place));
           }),
           py::arg("text_field"), py::arg("id_field"), py::arg("title_field"), py::arg("maximum_characters"),
           py::arg("maximum_line_bytes"), py::arg("place"))
      .def("scan",
           [](TextBatch &self, const py::buffer &lines, int64_t start, int64_t first_offset) {
             const py::buffer_info bytes = lines.request();
             if (bytes.ndim != 1 || bytes.itemsize != 1 || bytes.strides[0] != 1) {
               throw std::invalid_argument("lines must be bytes, one after another");
             }
             const std::string_view view(static_cast<const char *>(bytes.ptr), static_cast<size_t>(bytes.size));
             if (start < 0 || start > static_cast<int64_t>(view.size())) {
               throw std::out_of_range("start " + std::to_string(start) + " of " + std::to_string(view.size()));
             }
             py::gil_scoped_release release;
             return self.scan(view, start, first_offset);
           },
           py::arg("lines"), py::arg("start"), py::arg("first_offset"))
      .def("append",
           [](TextBatch &self, const py::bytes &text, const py::bytes &id, int64_t offset) {
             self.append(std::string_view(text), std::string_view(id), offset);
           },
           py::arg("text"), py::arg("id"), py::arg("offset"))
      .def("clear", &TextBatch::clear)
      .def("__len__", &TextBatch::documents)
      .def_property_readonly("texts", [](const TextBatch &self) { return py::bytes(self.texts); })
      .def_property_readonly("text_bounds", [](const TextBatch &self) { return megasbp::copied(self.text_bounds); })
      .def_property_readonly("ids", [](const TextBatch &self) { return py::bytes(self.ids); })
      .def_property_readonly("id_bounds", [](const TextBatch &self) { return megasbp::copied(self.id_bounds); })
      .def_property_readonly("offsets", [](const TextBatch &self) { return megasbp::copied(self.offsets); });
}
