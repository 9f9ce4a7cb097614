// ---- Stacks that the filters leave --------------------------------------------------------------

/** A regular expression of the reader, or why it is none. Case matters where there is a capital. */
function pattern(text) {
  if (!text) return { regex: null, error: '' };
  try {
    return { regex: new RegExp(text, /[A-Z]/.test(text) ? '' : 'i'), error: '' };
  } catch (error) {
    return { regex: null, error: 'not a regular expression' };
  }
}

/** Returns which names match: a byte for each. */
function matching(regex) {
  const found = new Uint8Array(NAMES);
  if (regex) names.forEach((name, id) => { found[id] = regex.test(name) ? 1 : 0; });
  return found;
}

/** Returns the stacks that the filters of a view leave, and that weigh something. */
function visibleStacks(view) {
  const weights = metrics[view.metric].weights;
  const without = view.filter.startsWith('!');
  const { regex } = pattern(without ? view.filter.slice(1) : view.filter);
  const found = regex && matching(regex);
  const visible = new Int32Array(STACKS);
  let count = 0;
  for (let i = 0; i < STACKS; i++) {
    if (!(weights[i] > 0)) continue;
    if (view.process >= 0 && stacks.process[i] !== view.process) continue;
    if (view.function >= 0 && stacks.function[i] !== view.function) continue;
    if (found) {
      let has = found[rootName[stacks.process[i]]] || found[functionName[stacks.function[i]]];
      for (let k = pathStart[i]; k < pathStart[i + 1] && !has; k++) has = found[frameName[path[k]]];
      if (Boolean(has) === without) continue;
    }
    visible[count++] = i;
  }
  return visible.subarray(0, count);
}

// ---- The call tree ------------------------------------------------------------------------------

/**
 * A tree of boxes, as arrays by node: node 0 is the whole, and a parent comes before its children.
 * `x` and `total` are in the unit of the metric; children lie side by side, the heaviest first.
 */
class CallTree {
  constructor(visible, view) {
    const metric = metrics[view.metric];
    let room = 1;
    for (const stack of visible) room += pathStart[stack + 1] - pathStart[stack] + 3;
    this.name = new Int32Array(room);
    this.parent = new Int32Array(room).fill(-1);
    this.total = new Float64Array(room);
    this.variance = metric.variances ? new Float64Array(room) : null;
    this.frame = new Int32Array(room).fill(-1);
    this.isMixed = new Uint8Array(room);
    this.depth = new Uint16Array(room);
    this.name[0] = -1;
    this.count = 1;
    this.addStacks(visible, view, metric, room);
    for (let node = this.count - 1; node > 0; node--) {
      this.total[this.parent[node]] += this.total[node];
      if (this.variance) this.variance[this.parent[node]] += this.variance[node];
    }
    this.layOut();
  }

  addStacks(visible, view, metric, room) {
    let size = 1024;
    while (size < room * 2) size *= 2;
    const slots = new Int32Array(size);
    const mask = size - 1;
    for (const stack of visible) {
      const length = spell(stack, view.own);
      let node = 0;
      for (let k = 0; k < length; k++) {
        const at = view.invert ? length - 1 - k : k;
        const name = line[at];
        let slot = (Math.imul(node, 0x9e3779b1) ^ Math.imul(name, 0x85ebca6b)) >>> 0;
        slot = (slot ^ (slot >>> 15)) & mask;
        let child = slots[slot];
        while (child && (this.parent[child] !== node || this.name[child] !== name)) {
          slot = (slot + 1) & mask;
          child = slots[slot];
        }
        if (!child) {
          child = this.count++;
          slots[slot] = child;
          this.parent[child] = node;
          this.name[child] = name;
          this.frame[child] = lineFrame[at];
          this.depth[child] = this.depth[node] + 1;
        } else if (this.frame[child] !== lineFrame[at]) {
          this.isMixed[child] = 1;
        }
        node = child;
      }
      this.total[node] += metric.weights[stack];
      if (this.variance) this.variance[node] += metric.variances[stack] || 0;
    }
  }

  /** Sorts children, and gives each box its place. */
  layOut() {
    const { count, parent, total } = this;
    this.first = new Int32Array(count + 1);
    for (let node = 1; node < count; node++) this.first[parent[node] + 1]++;
    for (let node = 0; node < count; node++) this.first[node + 1] += this.first[node];
    this.children = new Int32Array(Math.max(count - 1, 0));
    const next = this.first.slice();
    for (let node = 1; node < count; node++) this.children[next[parent[node]]++] = node;
    this.x = new Float64Array(count);
    this.deepest = 0;
    for (let node = 0; node < count; node++) {
      const [from, to] = [this.first[node], this.first[node + 1]];
      if (to - from > 1) {
        this.children.subarray(from, to).sort((a, b) => total[b] - total[a] || a - b);
      }
      let x = this.x[node];
      for (let k = from; k < to; k++) {
        this.x[this.children[k]] = x;
        x += total[this.children[k]];
      }
      if (this.depth[node] > this.deepest) this.deepest = this.depth[node];
    }
  }

  /** The names from the outermost box to this one. */
  pathTo(node) {
    const found = [];
    for (let at = node; at > 0; at = this.parent[at]) found.push(this.name[at]);
    return found.reverse();
  }

  /** The box at the end of a path of names, as far as there is one. */
  nodeAt(path) {
    let node = 0;
    for (const name of path) {
      const child = this.childrenOf(node).find((it) => this.name[it] === name);
      if (child === undefined) break;
      node = child;
    }
    return node;
  }

  childrenOf(node) {
    return this.children.subarray(this.first[node], this.first[node + 1]);
  }

  /** The widest box of a name; -1 where there is none. */
  widest(name) {
    let best = -1;
    for (let node = 1; node < this.count; node++) {
      if (this.name[node] === name && (best < 0 || this.total[node] > this.total[best])) best = node;
    }
    return best;
  }

  /** The weight of the stacks in which any name matches. */
  weightOf(found) {
    const inside = new Uint8Array(this.count);
    let sum = 0;
    for (let node = 1; node < this.count; node++) {
      if (inside[this.parent[node]]) inside[node] = 1;
      else if (found[this.name[node]]) {
        inside[node] = 1;
        sum += this.total[node];
      }
    }
    return sum;
  }
}

