// ---- The tree on a canvas -----------------------------------------------------------------------

const ROW = 18;
/** Boxes that are narrower are not drawn, in pixels. */
const NARROWEST = 0.5;
const SHADES = 5;

/** Draws a call tree, and turns what the reader does on it into calls of `on`. */
class Graph {
  constructor(elements, on) {
    Object.assign(this, elements);
    this.on = on;
    this.context = this.canvas.getContext('2d', { alpha: false });
    this.tree = null;
    this.from = 0;
    this.to = 1;
    this.icicle = false;
    this.marked = null;
    this.selected = -1;
    this.cursor = -1;
    this.hovered = -1;
    this.pending = 0;
    new ResizeObserver(() => this.resize()).observe(this.viewport);
    this.viewport.addEventListener('scroll', () => this.redraw());
    this.listen();
  }

  setColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    const shaded = (colour, shade) => {
      const factor = 0.94 + (0.12 * shade) / (SHADES - 1);
      const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) * factor);
      return `rgb(${parts.map((part) => Math.min(255, Math.round(part))).join(' ')})`;
    };
    const classes = ['own', 'library', 'libc', 'call', 'process'];
    this.palette = classes.flatMap((name) => Array.from({ length: SHADES }, (_, k) => shaded(read(name), k)));
    this.colours = Object.fromEntries(
      ['panel', 'box-text', 'match', 'match-text', 'accent', 'faint', 'text'].map((name) => [name, read(name)]),
    );
    if (!this.shade) {
      this.shade = Uint8Array.from(names, (name, id) => {
        let hash = 0;
        for (let k = 0; k < name.length; k++) hash = (Math.imul(hash, 31) + name.charCodeAt(k)) | 0;
        return nameClass[id] * SHADES + ((hash >>> 3) % SHADES);
      });
    }
    this.redraw();
  }

  /** Takes a tree; the range that is shown is in its unit. */
  setTree(tree, icicle) {
    this.tree = tree;
    this.icicle = icicle;
    this.cursor = -1;
    this.hovered = -1;
    this.resize();
    const hidden = Math.max(this.trunk() - 3, 0) * ROW;
    this.viewport.scrollTop = icicle ? hidden : this.content - this.height - hidden;
  }

  /** The depth up to which nearly all goes one way, as from the start of a program to its main. */
  trunk() {
    const { tree } = this;
    let node = 0;
    for (;;) {
      const [child] = tree.childrenOf(node);
      if (child === undefined || tree.total[child] < 0.9 * tree.total[0]) return tree.depth[node];
      node = child;
    }
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.viewport;
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    if (this.width !== width || this.height !== height || this.ratio !== ratio) {
      Object.assign(this, { width, height, ratio });
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const content = this.tree ? (this.tree.deepest + 1) * ROW : 0;
    this.content = Math.max(content, height);
    this.spacer.style.height = `${this.content - height}px`;
    this.redraw();
  }

  /** Draws at the next frame. */
  redraw() {
    if (this.pending || !this.tree) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.draw();
    });
  }

  /** The top of a row, in pixels of the viewport. */
  top(depth) {
    const y = this.icicle ? depth * ROW : this.content - (depth + 1) * ROW;
    return y - this.viewport.scrollTop;
  }

  draw() {
    const { context, tree, width, height, colours, palette, shade } = this;
    if (!tree || !palette || !width) return;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.fillStyle = colours.panel;
    context.fillRect(0, 0, width, height);
    context.font = '11px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace';
    context.textBaseline = 'middle';
    this.letter = this.letter || context.measureText('m'.repeat(64)).width / 64;
    const scale = width / (this.to - this.from);
    const outlined = [];
    const open = [0];
    while (open.length) {
      const node = open.pop();
      const left = (tree.x[node] - this.from) * scale;
      const wide = tree.total[node] * scale;
      if (wide < NARROWEST || left >= width || left + wide <= 0) continue;
      const y = this.top(tree.depth[node]);
      if (this.icicle ? y > height : y < -ROW) continue;
      for (let k = tree.first[node]; k < tree.first[node + 1]; k++) {
        // Children are sorted: what follows a narrow one is narrow.
        if (tree.total[tree.children[k]] * scale < NARROWEST) break;
        open.push(tree.children[k]);
      }
      if (y < -ROW || y > height) continue;
      const name = tree.name[node];
      const start = Math.max(left, 0);
      const shown = Math.min(left + wide, width) - start;
      const isMarked = this.marked && name >= 0 && this.marked[name];
      context.globalAlpha = this.marked && !isMarked ? 0.45 : 1;
      context.fillStyle = isMarked ? colours.match : palette[name < 0 ? PROCESS * SHADES : shade[name]];
      context.fillRect(start, y, Math.max(shown - (shown > 2 ? 0.75 : 0), NARROWEST), ROW - 1);
      context.globalAlpha = 1;
      if (name >= 0 && name === this.selected && shown > 2) outlined.push([start, y, shown]);
      const room = Math.floor((shown - 8) / this.letter);
      if (room >= 3) {
        context.fillStyle = isMarked ? colours['match-text'] : colours['box-text'];
        context.fillText(this.fit(name < 0 ? 'all' : names[name], room), start + 4, y + ROW / 2);
      }
    }
    this.outline(outlined, colours.accent, 2);
    const edge = (node) => {
      const left = Math.max((tree.x[node] - this.from) * scale, 0);
      const right = Math.min((tree.x[node] + tree.total[node] - this.from) * scale, width);
      return [left, this.top(tree.depth[node]), right - left];
    };
    if (this.hovered >= 0) this.outline([edge(this.hovered)], colours.text, 1);
    if (this.cursor >= 0 && document.activeElement === this.canvas) {
      this.outline([edge(this.cursor)], colours.text, 2);
    }
  }

  outline(boxes, colour, thick) {
    this.context.strokeStyle = colour;
    this.context.lineWidth = thick;
    for (const [x, y, wide] of boxes) {
      this.context.strokeRect(x + thick / 2, y + thick / 2, Math.max(wide - thick - 0.75, 0.5), ROW - 1 - thick);
    }
  }

  fit(text, room) {
    return text.length <= room ? text : `${text.slice(0, room - 1)}…`;
  }

  /** The box at a place of the canvas; -1 where there is none. */
  hit(x, y) {
    const { tree } = this;
    if (!tree) return -1;
    const at = this.from + (x / this.width) * (this.to - this.from);
    const down = y + this.viewport.scrollTop;
    const depth = Math.floor((this.icicle ? down : this.content - 1 - down) / ROW);
    let node = at >= 0 && at < tree.total[0] ? 0 : -1;
    for (let level = 0; level < depth && node >= 0; level++) {
      const inside = (child) => at >= tree.x[child] && at < tree.x[child] + tree.total[child];
      const child = tree.childrenOf(node).find(inside);
      node = child === undefined ? -1 : child;
    }
    return node;
  }

  /** Shows a range, in the unit of the metric, within the whole. */
  show(from, to) {
    const whole = this.tree.total[0] || 1;
    const span = Math.min(Math.max(to - from, whole * 1e-7), whole);
    this.from = Math.min(Math.max(from, 0), whole - span);
    this.to = this.from + span;
    this.redraw();
  }

  showNode(node) {
    this.show(this.tree.x[node], this.tree.x[node] + this.tree.total[node]);
    // The whole is always in view in its width; rows stay where they are.
    if (node > 0) this.reveal(node);
  }

  /** Scrolls so far that a box is in view. */
  reveal(node) {
    const y = this.top(this.tree.depth[node]);
    if (y < 0) this.viewport.scrollTop += y - ROW;
    else if (y > this.height - ROW) this.viewport.scrollTop += y - this.height + 2 * ROW;
  }

  zoomBy(factor, x) {
    const at = this.from + (x / this.width) * (this.to - this.from);
    this.show(at - (at - this.from) * factor, at + (this.to - at) * factor);
    this.on.range();
  }

  listen() {
    const { canvas } = this;
    let drag = null;
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        const by = ((event.deltaX || event.deltaY) / this.width) * (this.to - this.from);
        this.show(this.from + by, this.to + by);
        this.on.range();
      } else {
        this.zoomBy(Math.exp(Math.max(-120, Math.min(120, event.deltaY)) * 0.003), event.offsetX);
      }
      this.hover(event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      drag = { x: event.clientX, y: event.clientY, from: this.from, to: this.to, scroll: this.viewport.scrollTop };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener('pointermove', (event) => {
      if (drag && (drag.moved || Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 4)) {
        drag.moved = true;
        const by = ((drag.x - event.clientX) / this.width) * (drag.to - drag.from);
        this.show(drag.from + by, drag.to + by);
        this.viewport.scrollTop = drag.scroll + drag.y - event.clientY;
        this.hover(-1, -1);
      } else {
        this.hover(event.offsetX, event.offsetY);
      }
    });
    canvas.addEventListener('pointerup', (event) => {
      const was = drag;
      drag = null;
      if (!was) return;
      if (was.moved) {
        this.on.range();
        return;
      }
      const node = this.hit(event.offsetX, event.offsetY);
      if (node >= 0) this.choose(node);
    });
    canvas.addEventListener('pointerleave', () => this.hover(-1, -1));
    canvas.addEventListener('keydown', (event) => this.key(event));
    canvas.addEventListener('focus', () => this.redraw());
    canvas.addEventListener('blur', () => this.redraw());
  }

  choose(node) {
    this.cursor = node;
    this.on.choose(node);
  }

  hover(x, y) {
    const node = x < 0 ? -1 : this.hit(x, y);
    if (node !== this.hovered) {
      this.hovered = node;
      this.redraw();
    }
    this.on.hover(node, x, y);
  }

  key(event) {
    const { tree } = this;
    if (!tree || event.ctrlKey || event.metaKey || event.altKey) return;
    const inward = this.icicle ? 'ArrowDown' : 'ArrowUp';
    const outward = this.icicle ? 'ArrowUp' : 'ArrowDown';
    const node = Math.max(this.cursor, 0);
    const middle = () => ((tree.x[node] + tree.total[node] / 2 - this.from) / (this.to - this.from)) * this.width;
    const at = Math.min(Math.max(middle(), 0), this.width);
    switch (event.key) {
      case inward: {
        const children = tree.childrenOf(node);
        const isShown = (child) => tree.x[child] < this.to && tree.x[child] + tree.total[child] > this.from;
        this.move(this.cursor < 0 ? 0 : children.find(isShown) ?? node);
        break;
      }
      case outward: this.move(Math.max(tree.parent[node], 0)); break;
      case 'ArrowLeft': this.move(this.beside(node, -1)); break;
      case 'ArrowRight': this.move(this.beside(node, 1)); break;
      case 'Enter': case ' ': this.choose(node); break;
      case '+': case '=': this.zoomBy(0.7, at); break;
      case '-': case '_': this.zoomBy(1 / 0.7, at); break;
      case 'Home': case '0': this.move(0); this.on.whole(); break;
      default: return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** The next box of a row in one direction. */
  beside(node, step) {
    const { tree } = this;
    const edge = step > 0 ? tree.x[node] + tree.total[node] : tree.x[node];
    let best = node;
    for (let other = 1; other < tree.count; other++) {
      if (tree.depth[other] !== tree.depth[node] || other === node) continue;
      const x = tree.x[other];
      const isBeyond = step > 0 ? x >= edge * (1 - 1e-12) : x < edge;
      if (isBeyond && (best === node || (step > 0 ? x < tree.x[best] : x > tree.x[best]))) best = other;
    }
    return best;
  }

  move(node) {
    this.cursor = node;
    const { tree } = this;
    if (tree.x[node] >= this.to || tree.x[node] + tree.total[node] <= this.from) {
      const half = (this.to - this.from) / 2;
      const at = tree.x[node] + tree.total[node] / 2;
      this.show(at - half, at + half);
      this.on.range();
    }
    this.reveal(node);
    this.redraw();
    this.on.move(node);
  }
}

