/* rdkit_match.h -- SMARTS patterns that are matched with little work, for rdkit_properties.cc.
 *
 * The patterns, and what each of their atoms and bonds stands for, are RDKit's: here are only the
 * search and what spares most of it.  Patterns do not change once they are made, and threads share
 * them; a target belongs to its thread. */
#ifndef RDKIT_MATCH_H
#define RDKIT_MATCH_H

#include <bitset>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <RDGeneral/RDConfig.h> /* first: how RDKit was built decides what its classes look like */

#include <GraphMol/QueryAtom.h>
#include <GraphMol/QueryBond.h>
#include <GraphMol/QueryOps.h>
#include <GraphMol/RDKitBase.h>
#include <GraphMol/SmilesParse/SmilesParse.h>

namespace match
{
/* Sets of kinds of atoms, an element and whether it is aromatic. */
enum { ELEMENTS = 128 };
using kinds = std::bitset<2 * ELEMENTS>;

inline std::size_t kind_of(int element, bool aromatic)
{
    return static_cast<std::size_t>((element % ELEMENTS) + (aromatic ? ELEMENTS : 0));
}

/* A molecule to be searched. */
class target
{
  public:
    struct neighbour {
        int atom;
        const RDKit::Bond *bond;
    };

    explicit target(const RDKit::ROMol &molecule)
        : atom(molecule.getNumAtoms()), kind(atom.size()), used(atom.size()),
          first(atom.size() + 1)
    {
        for (const RDKit::Atom *a : molecule.atoms()) {
            unsigned i = a->getIdx();
            atom[i] = a;
            kind[i] = kind_of(a->getAtomicNum(), a->getIsAromatic());
            has.set(kind[i]);
            first[i + 1] = first[i] + static_cast<int>(a->getDegree());
        }
        near.resize(static_cast<std::size_t>(first.back()));
        std::vector<int> end(first.begin(), first.end() - 1);
        for (const RDKit::Bond *b : molecule.bonds()) {
            int i = static_cast<int>(b->getBeginAtomIdx()),
                j = static_cast<int>(b->getEndAtomIdx());
            near[static_cast<std::size_t>(end[static_cast<std::size_t>(i)]++)] = {j, b};
            near[static_cast<std::size_t>(end[static_cast<std::size_t>(j)]++)] = {i, b};
        }
    }

    int size() const
    {
        return static_cast<int>(atom.size());
    }
    const neighbour *begin(int i) const
    {
        return near.data() + first[static_cast<std::size_t>(i)];
    }
    const neighbour *end(int i) const
    {
        return begin(i + 1);
    }

    std::vector<const RDKit::Atom *> atom;
    std::vector<std::size_t> kind;
    kinds has;
    std::vector<char> used; /* by the match in hand: its depth; all 0 between searches */
    char depth = 1;         /* of patterns within patterns */

  private:
    std::vector<int> first; /* [atoms + 1] */
    std::vector<neighbour> near;
};

class pattern;

/* What an atom of a pattern stands for: RDKit's own query, taken apart where patterns within
 * patterns, $(...), are in it: RDKit would keep their matches in the query itself. */
class atom_query
{
  public:
    explicit atom_query(const RDKit::Atom *atom);
    bool holds(target &t, int i) const;
    const kinds &possible() const
    {
        return kinds_;
    }

  private:
    using query = RDKit::QueryAtom::QUERYATOM_QUERY;
    enum class form { leaf, all, any, inner };

    explicit atom_query(const query *q);
    void take(const query *q);

    form form_ = form::leaf;
    bool negated_ = false;
    const query *leaf_ = nullptr;
    std::vector<atom_query> parts_;
    std::shared_ptr<const pattern> inner_;
    kinds kinds_; /* no other atom can be meant */
};

class pattern
{
  public:
    /* A pattern is sought from its first atom on, or from the one that is likely to be rare. */
    enum class from { first, rarest };

    pattern(const std::string &smarts, from where)
        : pattern(std::shared_ptr<const RDKit::ROMol>(RDKit::SmartsToMol(smarts)), where)
    {
    }
    pattern(std::shared_ptr<const RDKit::ROMol> molecule, from where)
        : molecule_(std::move(molecule))
    {
        if (molecule_ == nullptr) throw std::runtime_error("a pattern that RDKit cannot read");
        if (where == from::rarest) place(rarest(), nullptr);
        for (const RDKit::Atom *a : molecule_->atoms())
            if (!placed(a)) place(a, nullptr);
    }

    /* Whether it is anywhere in the target. */
    bool occurs(target &t) const
    {
        for (const step &s : steps_)
            if ((s.query.possible() & t.has).none()) return false;
        for (int i = 0; i < t.size(); i++)
            if (occurs_at(t, i)) return true;
        return false;
    }

    /* Whether it is there, its search beginning at atom i. */
    bool occurs_at(target &t, int i) const
    {
        int places[ATOMS];
        return extends_to(t, i, 0, places);
    }

    const RDKit::ROMol &molecule() const
    {
        return *molecule_;
    }

    /* Kinds of atoms at which its search can begin. */
    const kinds &starts() const
    {
        return steps_[0].query.possible();
    }

  private:
    enum { ATOMS = 64 };

    /* An atom, which hangs on one before it by a bond unless it begins a piece of its own, and the
     * other bonds to atoms before it. */
    struct step {
        atom_query query;
        const RDKit::Atom *atom;
        int parent;
        const RDKit::Bond *bond;
        std::vector<std::pair<int, const RDKit::Bond *>> closures;
    };

    std::shared_ptr<const RDKit::ROMol> molecule_;
    std::vector<step> steps_;

    int place_of(const RDKit::Atom *atom) const
    {
        for (std::size_t k = 0; k < steps_.size(); k++)
            if (steps_[k].atom == atom) return static_cast<int>(k);
        return -1;
    }
    bool placed(const RDKit::Atom *atom) const
    {
        return place_of(atom) >= 0;
    }

    /* The atom that can be fewest kinds of atoms, carbon counting as many. */
    const RDKit::Atom *rarest() const
    {
        const RDKit::Atom *best = nullptr;
        std::size_t least = SIZE_MAX;
        for (const RDKit::Atom *a : molecule_->atoms()) {
            const kinds possible = atom_query(a).possible();
            std::size_t count = possible.count() + (possible[kind_of(6, false)] ? 8 : 0) +
                                (possible[kind_of(6, true)] ? 8 : 0);
            if (count >= least) continue;
            least = count;
            best = a;
        }
        return best;
    }

    /* The atom and all that hangs on it. */
    void place(const RDKit::Atom *atom, const RDKit::Bond *bond)
    {
        if (steps_.size() == ATOMS) throw std::runtime_error("a pattern of too many atoms");
        step s{atom_query(atom), atom, -1, bond, {}};
        if (bond != nullptr) s.parent = place_of(bond->getOtherAtom(atom));
        for (const RDKit::Bond *b : molecule_->atomBonds(atom))
            if (b != bond && placed(b->getOtherAtom(atom)))
                s.closures.emplace_back(place_of(b->getOtherAtom(atom)), b);
        steps_.push_back(std::move(s));
        for (const RDKit::Bond *b : molecule_->atomBonds(atom))
            if (!placed(b->getOtherAtom(atom))) place(b->getOtherAtom(atom), b);
    }

    static bool closes(const target &t, int i, int j, const RDKit::Bond *bond)
    {
        for (const target::neighbour *n = t.begin(i); n != t.end(i); n++)
            if (n->atom == j) return bond->Match(n->bond);
        return false;
    }

    /* Whether step k can be atom i, and the steps after it find their places. */
    bool extends_to(target &t, int i, std::size_t k, int *places) const
    {
        const step &s = steps_[k];
        auto at = static_cast<std::size_t>(i);
        if (t.used[at] == t.depth || !s.query.possible()[t.kind[at]] || !s.query.holds(t, i))
            return false;
        for (const auto &[earlier, bond] : s.closures)
            if (!closes(t, i, places[earlier], bond)) return false;
        char before = t.used[at];
        places[k] = i;
        t.used[at] = t.depth;
        bool found = extends(t, k + 1, places);
        t.used[at] = before;
        return found;
    }

    bool extends(target &t, std::size_t k, int *places) const
    {
        if (k == steps_.size()) return true;
        const step &s = steps_[k];
        if (s.parent < 0) {
            for (int i = 0; i < t.size(); i++)
                if (extends_to(t, i, k, places)) return true;
            return false;
        }
        int hub = places[s.parent];
        for (const target::neighbour *n = t.begin(hub); n != t.end(hub); n++)
            if (s.bond->Match(n->bond) && extends_to(t, n->atom, k, places)) return true;
        return false;
    }
};

inline atom_query::atom_query(const RDKit::Atom *atom)
{
    if (!atom->hasQuery()) throw std::runtime_error("a pattern with an atom that is no query");
    take(atom->getQuery());
}

inline atom_query::atom_query(const query *q)
{
    take(q);
}

/* An atom of a pattern within a pattern may be one of the match around it: its search is a depth of
 * its own. */
inline bool atom_query::holds(target &t, int i) const
{
    bool held = false;
    switch (form_) {
    case form::leaf: return leaf_->Match(t.atom[static_cast<std::size_t>(i)]);
    case form::all:
        held = true;
        for (const atom_query &part : parts_)
            held = held && part.holds(t, i);
        break;
    case form::any:
        for (const atom_query &part : parts_)
            held = held || part.holds(t, i);
        break;
    case form::inner:
        t.depth++;
        held = inner_->occurs_at(t, i);
        t.depth--;
        break;
    }
    return held != negated_;
}

inline void atom_query::take(const query *q)
{
    const std::string &name = q->getDescription();
    bool all = name == "AtomAnd", any = name == "AtomOr", recursive = false;
    kinds_.set();
    for (auto child = q->beginChildren(); child != q->endChildren(); ++child) {
        parts_.push_back(atom_query(child->get()));
        recursive = recursive || parts_.back().form_ != form::leaf;
    }
    if (all)
        for (const atom_query &part : parts_)
            kinds_ &= part.kinds_;
    if (any) {
        kinds_.reset();
        for (const atom_query &part : parts_)
            kinds_ |= part.kinds_;
    }
    if (name == "RecursiveStructure") {
        const auto *inner = dynamic_cast<const RDKit::RecursiveStructureQuery *>(q);
        if (inner == nullptr) throw std::runtime_error("a pattern of an unknown kind");
        inner_ = std::make_shared<const pattern>(
            std::make_shared<const RDKit::ROMol>(*inner->getQueryMol()), pattern::from::first);
        kinds_ = inner_->starts();
        form_ = form::inner;
    }
    if (recursive && !all && !any) throw std::runtime_error("a pattern of an unknown kind");
    if (recursive) form_ = all ? form::all : form::any;
    if (form_ == form::leaf) {
        const auto *equal = dynamic_cast<const RDKit::ATOM_EQUALS_QUERY *>(q);
        int element = 0;
        bool aromatic = false;
        parts_.clear();
        leaf_ = q;
        if (equal != nullptr && name == "AtomType") {
            RDKit::parseAtomType(equal->getVal(), element, aromatic);
            kinds_.reset().set(kind_of(element, aromatic));
        } else if (equal != nullptr && name == "AtomAtomicNum") {
            element = equal->getVal();
            kinds_.reset().set(kind_of(element, false)).set(kind_of(element, true));
        }
    }
    negated_ = form_ != form::leaf && q->getNegation();
    if (q->getNegation()) kinds_.set();
}
} /* namespace match */

#endif /* RDKIT_MATCH_H */
