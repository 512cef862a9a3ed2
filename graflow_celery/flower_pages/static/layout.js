// Where the nodes of a graph stand: layers from left to right, groups as boxes around their members. Pure arithmetic.

export const FOLD = 50; // members beyond which a group is folded until it is opened
export const BOXES = 240; // boxes that are drawn at a time
const CELLS = 3000; // members of an opened big group that are drawn
const WIDTH = 168;
const HEIGHT = 38;
const GAP_X = 44;
const GAP_Y = 12;
const PAD = 12;
const HEAD = 26;
const CELL = 14;
const CELLS_A_ROW = 40;

// Layers of siblings: each is in the first one after all that lead to it.
export function layers(siblings) {
  const inside = new Map(siblings.map((node) => [node.id, node]));
  const needs = new Map(siblings.map((node) => [node.id, 0]));
  for (const node of siblings) {
    for (const next of node.next) if (needs.has(next)) needs.set(next, needs.get(next) + 1);
  }
  const made = [];
  let ready = siblings.filter((node) => needs.get(node.id) === 0);
  const seen = new Set();
  while (ready.length) {
    made.push(ready);
    const following = [];
    for (const node of ready) {
      seen.add(node.id);
      for (const next of node.next) {
        if (!needs.has(next)) continue;
        needs.set(next, needs.get(next) - 1);
        if (needs.get(next) === 0) following.push(inside.get(next));
      }
    }
    ready = following;
  }
  const left = siblings.filter((node) => !seen.has(node.id));
  return left.length ? [...made, left] : made;
}

// How many boxes are drawn of a node.
function boxes(node, opened) {
  if (!isDrawnOpen(node, opened) || isGrid(node)) return 1;
  return 1 + node.members.reduce((sum, member) => sum + boxes(member, opened), 0);
}

export function isDrawnOpen(node, opened) {
  if (!node.isGroup || node.members.length === 0) return false;
  return opened.has(node.id) ? opened.get(node.id) : node.members.length <= FOLD;
}

// An opened group that is drawn as small squares.
export function isGrid(node) {
  return node.members.length > FOLD && node.members.every((member) => !member.isGroup);
}

// The layers that are drawn at a time: from `first` on, as many as give BOXES boxes, at least one.
export function windowOf(all, first, opened) {
  let last = first;
  let count = 0;
  while (last < all.length) {
    count += all[last].reduce((sum, node) => sum + boxes(node, opened), 0);
    if (count > BOXES && last > first) break;
    last += 1;
  }
  return last;
}

export function place(all, opened) {
  const placed = [];
  const size = column(all, 0, 0, opened, placed);
  return { placed, width: size.width, height: size.height };
}

function column(all, x, y, opened, placed) {
  let left = x;
  let deepest = 0;
  const columns = all.map((layer) => {
    const shown = layer.slice(0, BOXES);
    const sizes = shown.map((node) => sizeOf(node, opened));
    return { shown, sizes, height: sizes.reduce((sum, size) => sum + size.height + GAP_Y, -GAP_Y), layer };
  });
  const tallest = Math.max(0, ...columns.map((one) => one.height));
  for (const { shown, sizes, height, layer } of columns) {
    const widest = Math.max(...sizes.map((size) => size.width));
    let top = y + (tallest - height) / 2;
    shown.forEach((node, index) => {
      put(node, left + (widest - sizes[index].width) / 2, top, sizes[index], opened, placed);
      top += sizes[index].height + GAP_Y;
    });
    if (layer.length > shown.length) {
      placed.push({ more: layer.length - shown.length, x: left, y: top, width: widest, height: HEIGHT });
      deepest = Math.max(deepest, top + HEIGHT - y);
    }
    left += widest + GAP_X;
  }
  return { width: Math.max(0, left - GAP_X - x), height: Math.max(tallest, deepest) };
}

function sizeOf(node, opened) {
  if (!isDrawnOpen(node, opened)) return { width: WIDTH, height: node.isGroup ? HEIGHT + 16 : HEIGHT };
  if (isGrid(node)) {
    const shown = Math.min(node.members.length, CELLS);
    const rows = Math.ceil(shown / CELLS_A_ROW);
    return { width: CELLS_A_ROW * CELL + 2 * PAD, height: rows * CELL + HEAD + PAD };
  }
  const inner = column(inside(node), 0, 0, opened, []);
  return { width: Math.max(WIDTH, inner.width + 2 * PAD), height: inner.height + HEAD + PAD };
}

// The members' layers. Many that stand side by side are put into several columns.
function inside(group) {
  const all = layers(group.members);
  if (all.length > 1 || group.members.length <= 8) return all;
  const rows = Math.max(8, Math.ceil(Math.sqrt(group.members.length * 2)));
  const made = [];
  for (let start = 0; start < group.members.length; start += rows) made.push(group.members.slice(start, start + rows));
  return made;
}

function put(node, x, y, size, opened, placed) {
  const box = { node, x, y, ...size, kind: node.isGroup ? "folded" : "task" };
  placed.push(box);
  if (!isDrawnOpen(node, opened)) return;
  box.kind = "open";
  if (!isGrid(node)) {
    column(inside(node), x + PAD, y + HEAD, opened, placed);
    return;
  }
  node.members.slice(0, CELLS).forEach((member, index) => {
    const column = index % CELLS_A_ROW;
    const row = Math.floor(index / CELLS_A_ROW);
    const at = { x: x + PAD + column * CELL, y: y + HEAD + row * CELL };
    placed.push({ node: member, ...at, width: CELL - 2, height: CELL - 2, kind: "cell" });
  });
}
