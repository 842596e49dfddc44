//! Trees that are joined and parted, and the lightest node on the way from a node up to its root.
//!
//! Link-cut trees (Sleator and Tarjan): each tree is parted into ways that lead upwards, and each way is a splay tree in
//! which what is above stands left. Every operation takes logarithmic time, amortized, whatever the shape of the trees.
//! What must stay true: no recursion, and a node that is not there is as one that stands alone.

/// No node.
const NONE: usize = usize::MAX;

#[derive(Clone, Copy)]
struct Node {
    /// Above it in its splay tree; at the root of one, the node that its way hangs below.
    up: usize,
    left: usize,
    right: usize,
    weight: usize,
    /// The least weight in its part of the splay tree.
    least: usize,
}

const NOBODY: Node = Node { up: NONE, left: NONE, right: NONE, weight: usize::MAX, least: usize::MAX };

/// Nodes by number, each with its weight; at first each is a tree by itself.
pub(crate) struct Forest(Vec<Node>);

impl Forest {
    /// Nodes of these weights.
    pub(crate) fn new(weights: Vec<usize>) -> Forest {
        Forest(weights.into_iter().map(|weight| Node { weight, least: weight, ..NOBODY }).collect())
    }

    /// The root of the tree of a node.
    pub(crate) fn root(&mut self, node: usize) -> usize {
        self.expose(node);
        let mut root = node;
        while self.at(root).left != NONE {
            root = self.at(root).left;
        }
        self.splay(root);
        root
    }

    /// The least weight from a node up to its root.
    pub(crate) fn least(&mut self, node: usize) -> usize {
        self.expose(node);
        self.at(node).least
    }

    /// Hangs a root below a node of another tree.
    pub(crate) fn join(&mut self, root: usize, above: usize) {
        self.expose(root);
        self.edit(root, |node| node.up = above);
    }

    /// Takes a node off what it hangs below: it is a root.
    pub(crate) fn part(&mut self, node: usize) {
        self.expose(node);
        let above = self.at(node).left;
        self.edit(above, |above| above.up = NONE);
        self.edit(node, |node| node.left = NONE);
        self.sum(node);
    }

    fn at(&self, node: usize) -> Node {
        self.0.get(node).copied().unwrap_or(NOBODY)
    }

    fn edit(&mut self, node: usize, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.0.get_mut(node) {
            change(node);
        }
    }

    fn sum(&mut self, node: usize) {
        let Node { left, right, weight, .. } = self.at(node);
        let least = weight.min(self.at(left).least).min(self.at(right).least);
        self.edit(node, |node| node.least = least);
    }

    /// Makes the way from a node up to its root one splay tree, with the node as the root of that and nothing below it.
    fn expose(&mut self, node: usize) {
        let (mut below, mut here) = (NONE, node);
        while here != NONE {
            self.splay(here);
            self.edit(here, |node| node.right = below);
            self.sum(here);
            below = here;
            here = self.at(here).up;
        }
        self.splay(node);
    }

    fn splay(&mut self, node: usize) {
        while let Some(up) = self.parent(node) {
            if let Some(over) = self.parent(up) {
                let straight = (self.at(over).left == up) == (self.at(up).left == node);
                self.rotate(if straight { up } else { node });
            }
            self.rotate(node);
        }
    }

    /// The parent in the splay tree.
    fn parent(&self, node: usize) -> Option<usize> {
        let up = self.at(node).up;
        let Node { left, right, .. } = self.at(up);
        (up != NONE && (left == node || right == node)).then_some(up)
    }

    /// Brings a node above its parent.
    fn rotate(&mut self, node: usize) {
        let Some(up) = self.parent(node) else { return };
        let over = self.at(up).up;
        if self.parent(up).is_some() {
            self.edit(over, |over| *(if over.left == up { &mut over.left } else { &mut over.right }) = node);
        }
        let Node { left, right, .. } = self.at(node);
        let inner = if self.at(up).left == node {
            self.edit(up, |up| up.left = right);
            self.edit(node, |node| node.right = up);
            right
        } else {
            self.edit(up, |up| up.right = left);
            self.edit(node, |node| node.left = up);
            left
        };
        self.edit(inner, |inner| inner.up = up);
        self.edit(up, |up| up.up = node);
        self.edit(node, |node| node.up = over);
        self.sum(up);
        self.sum(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drawn operations beside a plain model.
    #[test]
    fn it_agrees_with_its_model() {
        let mut seed = 1_u64;
        let mut any = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        for _ in 0..50 {
            let count = 2 + any(40);
            let weights: Vec<usize> = (0..count).map(|_| any(1000)).collect();
            let (mut forest, mut above) = (Forest::new(weights.clone()), vec![None; count]);
            for _ in 0..1000 {
                let (node, other) = (any(count), any(count));
                let way = |above: &[Option<usize>], node| {
                    std::iter::successors(Some(node), |at: &usize| above[*at]).collect::<Vec<_>>()
                };
                let mine = way(&above, node);
                let root = *mine.last().unwrap();
                assert_eq!(forest.root(node), root);
                assert_eq!(forest.least(node), mine.iter().map(|at| weights[*at]).min().unwrap());
                if any(3) == 0 {
                    forest.part(node);
                    above[node] = None;
                } else if *way(&above, other).last().unwrap() != root {
                    forest.join(root, other);
                    above[root] = Some(other);
                }
            }
        }
    }
}
