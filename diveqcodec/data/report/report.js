"use strict";
// Fills the viewers from the crops in the page, and sorts the table of pictures.
(function () {
  function element(tag, properties, children) {
    var made = Object.assign(document.createElement(tag), properties || {});
    (children || []).forEach(function (child) { made.appendChild(child); });
    return made;
  }

  function viewer(crop, codecs) {
    var left = element("img", { className: "left" });
    var right = element("img", { className: "right" });
    var stage = element("div", { className: "stage" }, [left, right]);
    stage.style.aspectRatio = crop.width + " / " + crop.height;
    var slider = element("input", { type: "range", min: 0, max: 100, value: 50 });
    slider.setAttribute("aria-label", "border between the two pictures");
    var says = [element("span"), element("span")];
    var choices = [1, crop.beside].map(function (chosen, side) {
      var options = codecs.map(function (codec, place) {
        return element("option", { value: place, textContent: codec.name });
      });
      var select = element("select", {}, options);
      select.value = chosen;
      select.setAttribute("aria-label", side ? "right" : "left");
      select.addEventListener("change", show);
      return select;
    });
    function show() {
      [left, right].forEach(function (image, side) {
        var place = Number(choices[side].value);
        image.src = "data:image/png;base64," + crop.images[place];
        image.alt = codecs[place].name;
        says[side].textContent = codecs[place].says;
      });
    }
    slider.addEventListener("input", function () {
      stage.style.setProperty("--cut", slider.value + "%");
    });
    show();
    return element("div", { className: "viewer" }, [
      element("p", { textContent: crop.title }),
      element("div", { className: "controls" }, choices),
      stage,
      slider,
      element("div", { className: "says" }, says),
    ]);
  }

  function sortable(table) {
    var heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach(function (head, column) {
      head.addEventListener("click", function () {
        var falls = head.getAttribute("aria-sort") === "ascending";
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", falls ? "descending" : "ascending");
        var body = table.tBodies[0];
        Array.from(body.rows)
          .sort(function (a, b) {
            var x = a.cells[column].dataset.value, y = b.cells[column].dataset.value;
            // what has no figure stays at the end
            if (x === "" || y === "") return (x === "") - (y === "");
            var order = column ? Number(x) - Number(y) : x.localeCompare(y);
            return falls ? -order : order;
          })
          .forEach(function (row) { body.appendChild(row); });
      });
    });
  }

  JSON.parse(document.getElementById("crops-data").textContent).forEach(function (picture) {
    var viewers = picture.crops.map(function (crop) { return viewer(crop, picture.codecs); });
    document.getElementById("crops").appendChild(
      element("section", {}, [
        element("h3", { textContent: picture.image }),
        element("div", { className: "crops" }, viewers),
      ])
    );
  });
  document.querySelectorAll("#pictures").forEach(sortable);
  document.body.dataset.ready = "yes";
})();
