// Slices with a slider, pictures that zoom and move together, a table of objects; see viewer.py for the data.
"use strict";
(() => {
  const part = name => document.getElementById(`viewer-${name}`);
  const make = (tag, text = "", properties = {}) => Object.assign(document.createElement(tag), {textContent: text}, properties);
  const {samples, objects} = JSON.parse(part("data").textContent);
  const COLUMNS = [["number", "number"], ["area", "area, pixels"], ["y", "y"], ["x", "x"]];
  const MOST = 40;  // times that a picture is magnified
  const view = {x: .5, y: .5, zoom: 1};  // the middle of what is seen, as a share of the picture; 1 = the whole
  const kinds = [...new Set(samples.flatMap(sample => sample.pictures.map(picture => picture.kind)))];
  const shown = new Set(samples.flatMap(sample => sample.pictures.filter(one => one.first).map(one => one.kind)));
  let sample, pictures = [], numbers = null, selected = 0, order = {by: "number", rising: true}, outline = null, spot = null;

  // ---------------------------------------------------------------------------------- pictures

  async function decoded(source) {
    const image = new Image();
    image.src = source;
    await image.decode();
    return image;
  }

  // a PNG whose red and green say the number of each pixel's object -> the numbers, and the objects in their colours
  function unpacked(image, palette) {
    const canvas = make("canvas", "", {width: image.width, height: image.height});
    const context = canvas.getContext("2d", {willReadFrequently: true});
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, image.width, image.height), bytes = pixels.data;
    const found = new Uint16Array(image.width * image.height);
    for (let at = 0; at < found.length; at++) {
      found[at] = bytes[4 * at] + 256 * bytes[4 * at + 1];
      const colour = parseInt(palette.substr(6 * found[at], 6), 16);
      bytes.set([colour >> 16, colour >> 8 & 255, colour & 255], 4 * at);
    }
    context.putImageData(pixels, 0, 0);
    return {canvas, found};
  }

  async function show(number) {
    const next = samples[number];
    sample = next;
    const images = await Promise.all(next.pictures.map(picture => decoded(picture.source)));
    if (sample !== next) return;  // the slider went on
    [selected, outline, numbers] = [0, null, null];
    pictures = next.pictures.map((picture, place) => {
      if (!picture.palette) return {...picture, image: images[place]};
      const {canvas, found} = unpacked(images[place], picture.palette);
      numbers = found;
      return {...picture, image: canvas};
    });
    part("slider").value = number;
    part("slider").setAttribute("aria-valuetext", next.name);
    part("name").textContent = next.name;
    panels();
    if (objects) { table(); histogram(); }
    document.getElementById("viewer").dataset.shown = number;
  }

  function panels() {
    const held = document.activeElement.picture?.kind;  // keys and wheel go on in the picture that they were used in
    part("panels").replaceChildren(...pictures.filter(picture => shown.has(picture.kind)).map(picture => {
      const figure = make("figure"), canvas = make("canvas", "", {tabIndex: 0, picture});
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${sample.name}: ${picture.title}`);
      listen(canvas);
      figure.append(make("figcaption", picture.title), canvas);
      return figure;
    }));
    [...part("panels").querySelectorAll("canvas")].find(canvas => canvas.picture.kind === held)?.focus({preventScroll: true});
    draw();
  }

  function draw() {
    const [height, width] = sample.size, half = .5 / view.zoom;
    for (const side of "xy") view[side] = Math.min(Math.max(view[side], half), 1 - half);
    for (const canvas of part("panels").querySelectorAll("canvas")) {
      canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
      canvas.height = Math.round(canvas.width * height / width);
      const scale = canvas.width / width * view.zoom, context = canvas.getContext("2d");
      context.setTransform(scale, 0, 0, scale, canvas.width / 2 - view.x * width * scale,
                           canvas.height / 2 - view.y * height * scale);
      context.imageSmoothingEnabled = scale < 1;
      context.drawImage(canvas.picture.image, 0, 0, width, height);
      const line = (path, colour, thick) => {
        context.strokeStyle = colour;
        context.lineWidth = thick * devicePixelRatio / scale;
        context.stroke(path);
      };
      for (const path of [outline, spot?.sample === sample && spot.path].filter(Boolean)) {
        line(path, "#000", 5);
        line(path, "#f0e442", 2);
      }
      canvas.dataset.view = `${view.x} ${view.y} ${view.zoom}`;
    }
  }

  // ---------------------------------------------------------------------------------- zoom and move

  function zoom(factor, x = view.x, y = view.y) {
    const before = view.zoom;
    view.zoom = Math.min(Math.max(before * factor, 1), MOST);
    const moved = 1 - before / view.zoom;  // what is under the pointer stays there
    view.x += (x - view.x) * moved;
    view.y += (y - view.y) * moved;
    draw();
  }

  function move(x, y) {
    view.x += x / view.zoom;
    view.y += y / view.zoom;
    draw();
  }

  function whole() {
    Object.assign(view, {x: .5, y: .5, zoom: 1});
    draw();
  }

  // look at a box [top, left, bottom, right] in pixels, with as much again around it
  function lookAt([top, left, bottom, right]) {
    const [height, width] = sample.size;
    Object.assign(view, {x: (left + right) / 2 / width, y: (top + bottom) / 2 / height,
                         zoom: Math.min(Math.max(.5 / Math.max((right - left) / width, (bottom - top) / height), 1), MOST)});
    draw();
  }

  function place(canvas, event) {  // of the pointer, as a share of the picture
    const box = canvas.getBoundingClientRect();
    return [view.x + ((event.clientX - box.left) / box.width - .5) / view.zoom,
            view.y + ((event.clientY - box.top) / box.height - .5) / view.zoom];
  }

  function listen(canvas) {
    let from = null, dragged = 0;
    canvas.addEventListener("wheel", event => {
      if (document.activeElement !== canvas && !event.ctrlKey) return;  // the page scrolls
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 400), ...place(canvas, event));
    }, {passive: false});
    canvas.addEventListener("pointerdown", event => {
      canvas.focus({preventScroll: true});
      canvas.setPointerCapture(event.pointerId);
      [from, dragged] = [event, 0];
    });
    canvas.addEventListener("pointermove", event => {
      if (!from) return;
      const [x, y] = [from.clientX - event.clientX, from.clientY - event.clientY];
      dragged += Math.abs(x) + Math.abs(y);
      from = event;
      move(x / canvas.clientWidth, y / canvas.clientHeight);
    });
    canvas.addEventListener("pointerup", event => {
      from = null;
      if (dragged > 4 || !numbers) return;
      const [height, width] = sample.size, [x, y] = place(canvas, event);
      select(numbers[Math.floor(y * height) * width + Math.floor(x * width)], false);
    });
    canvas.addEventListener("pointercancel", () => { from = null; });
    canvas.addEventListener("dblclick", whole);
    const keys = {ArrowLeft: () => move(-.1, 0), ArrowRight: () => move(.1, 0), ArrowUp: () => move(0, -.1),
                  ArrowDown: () => move(0, .1), "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: whole};
    canvas.addEventListener("keydown", event => {
      if (!(event.key in keys) || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      keys[event.key]();
    });
  }

  // ---------------------------------------------------------------------------------- objects

  function select(number, look = true) {
    selected = number;
    outline = null;
    for (const row of part("scroll").querySelectorAll("tbody tr")) {
      row.setAttribute("aria-selected", row.object.number === number);
      if (row.object.number !== number) continue;
      outline = outlined(row.object);
      if (look) lookAt(row.object.box);
      else row.scrollIntoView({block: "nearest"});
    }
    draw();
  }

  // the edges of an object's pixels
  function outlined({number, box: [top, left, bottom, right]}) {
    const [height, width] = sample.size, path = new Path2D();
    const inside = (y, x) => y >= 0 && x >= 0 && y < height && x < width && numbers[y * width + x] === number;
    const edge = (x, y, toX, toY) => { path.moveTo(x, y); path.lineTo(toX, toY); };
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        if (inside(y, x) !== inside(y - 1, x)) edge(x, y, x + 1, y);
        if (inside(y, x) !== inside(y, x - 1)) edge(x, y, x, y + 1);
      }
    }
    return path;
  }

  function table() {
    const rising = order.rising ? 1 : -1;
    part("count").textContent = `${sample.objects.length} ${objects}`;
    part("scroll").querySelector("thead tr").replaceChildren(...COLUMNS.map(([name, title]) => {
      const head = make("th"), button = make("button", title);
      head.scope = "col";
      head.setAttribute("aria-sort", order.by !== name ? "none" : order.rising ? "ascending" : "descending");
      button.addEventListener("click", () => {
        order = {by: name, rising: order.by === name ? !order.rising : name !== "area"};
        table();
        part("scroll").querySelectorAll("thead button")[COLUMNS.findIndex(([one]) => one === name)].focus();
      });
      head.append(button);
      return head;
    }));
    const rows = [...sample.objects].sort((one, other) => rising * (one[order.by] - other[order.by])).map(object => {
      const row = make("tr", "", {object, tabIndex: 0});
      row.setAttribute("aria-selected", object.number === selected);
      row.append(...COLUMNS.map(([name]) => make("td", object[name].toLocaleString("en"))));
      row.addEventListener("click", () => select(object.number));
      row.addEventListener("keydown", event => {
        const beside = {ArrowDown: row.nextSibling, ArrowUp: row.previousSibling}[event.key];
        if (event.key !== "Enter" && event.key !== " " && !beside) return;
        event.preventDefault();
        if (beside) beside.focus();
        else select(object.number);
      });
      return row;
    });
    part("scroll").querySelector("tbody").replaceChildren(...rows);
  }

  // areas in bins of equal ratio, the same for all slices: bars of this one, and a line for the mean of all
  function histogram() {
    const all = samples.flatMap(one => one.objects.map(object => object.area)), BINS = 24;
    const areas = sample.objects.map(object => object.area).sort((one, other) => one - other);
    part("areas").textContent = areas.length ? `Least ${areas[0].toLocaleString("en")}, median ${
      areas[areas.length >> 1].toLocaleString("en")}, greatest ${areas[areas.length - 1].toLocaleString("en")} pixels. Bars: ` +
      "this picture; line: the mean of all. The scale is logarithmic." : "There are none here.";
    if (!all.length) return part("histogram").replaceChildren();
    const [low, high] = [all, all].map((those, end) => Math.log(those.reduce((one, other) => Math[end ? "max" : "min"](one, other))));
    const counts = those => those.reduce((bins, area) => {
      bins[Math.min(Math.floor((Math.log(area) - low) / (high - low || 1) * BINS), BINS - 1)]++;
      return bins;
    }, Array(BINS).fill(0));
    const here = counts(areas), mean = counts(all).map(count => count / samples.length);
    const top = Math.max(...here, ...mean), y = count => 150 - 140 * count / top;
    const area = bin => Math.round(Math.exp(low + (high - low) * bin / BINS)).toLocaleString("en");
    const bars = here.map((count, bin) => `<rect x="${20 * bin + 2}" y="${y(count)}" width="16" height="${150 - y(count)}" ` +
      `fill="#56b4e9"><title>${count} of ${area(bin)} to ${area(bin + 1)} pixels</title></rect>`);
    const ticks = [0, 6, 12, 18, 24].map(bin => `<text x="${20 * bin}" y="168" font-size="13" text-anchor="${
      bin === 0 ? "start" : bin === BINS ? "end" : "middle"}">${area(bin)}</text>`);
    part("histogram").innerHTML = `<svg viewBox="0 0 480 175" role="img" aria-label="histogram of ${areas.length} areas, at most ${
      Math.max(...here)} in a bar">${bars.join("")}<polyline fill="none" stroke="#d55e00" stroke-width="2" points="${
      mean.map((count, bin) => `${20 * bin + 10},${y(count)}`).join(" ")}"/><path d="M0 150H480" stroke="#222"/>${ticks.join("")}</svg>`;
  }

  // ---------------------------------------------------------------------------------- start

  part("slider").max = samples.length - 1;
  part("slider").addEventListener("input", () => show(Number(part("slider").value)));
  part("in").addEventListener("click", () => zoom(1.5));
  part("out").addEventListener("click", () => zoom(1 / 1.5));
  part("whole").addEventListener("click", whole);
  part("kinds").append(...kinds.map(kind => {
    const label = make("label", kind), box = make("input", "", {type: "checkbox", checked: shown.has(kind)});
    box.addEventListener("change", () => {
      shown[box.checked ? "add" : "delete"](kind);
      panels();
    });
    label.prepend(box);
    return label;
  }));
  for (const one of document.querySelectorAll(".viewer-of-objects")) one.hidden = !objects;
  document.getElementById("viewer").addEventListener("keydown", event => {
    const number = Number(part("slider").value) + {PageUp: -1, PageDown: 1}[event.key];
    if (!(number >= 0 && number < samples.length) || event.target === part("slider")) return;
    event.preventDefault();
    show(number);
  });
  for (const button of document.querySelectorAll("button[data-tile]")) {  // of what to label next
    button.addEventListener("click", async () => {
      const [number, ...box] = JSON.parse(button.dataset.tile), [top, left, bottom, right] = box, path = new Path2D();
      await show(number);
      path.rect(left, top, right - left, bottom - top);
      spot = {sample, path};
      lookAt(box);
      document.getElementById("viewer").scrollIntoView({behavior: "smooth"});
    });
  }
  addEventListener("resize", draw);
  show(0);
})();
